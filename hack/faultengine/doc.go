// Package faultengine stands between a program and a container engine on this
// machine, and can do to the program what engines do: hang, go away and come
// back, and forget to answer. The engine itself is left alone.
package faultengine
