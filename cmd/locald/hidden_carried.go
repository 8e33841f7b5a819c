//go:build carried

package main

var hidden map[string]func(args []string) int
