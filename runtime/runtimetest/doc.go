// Package runtimetest holds the tests that every runtime must pass. It starts
// real instances through the runtime it is given; it contains no runtime of
// its own and no fake.
package runtimetest
