//go:build race

package main

// How many times the memory and the time of a program the race detector takes.
const raceMemory, raceTime = 10, 3
