// Package env resolves what a service's environment and references come to.
//
// It reads no file and asks no machine: the project comes from package config,
// addresses from whoever calls. It imports config only; package project imports it.
package env
