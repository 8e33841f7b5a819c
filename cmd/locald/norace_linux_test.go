//go:build !race

package main

const raceMemory, raceTime = 1, 1
