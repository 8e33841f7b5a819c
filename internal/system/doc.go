// Package system is the product as a whole, tested under crashes, load and
// time.
//
// It has no code of its own: its tests build the program that people run, drive
// it as they do, and look at what they would see. What one room promises is
// tested in that room.
package system
