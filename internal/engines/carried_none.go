//go:build !carried

package engines

const carriedEngines, carriedEnginesSum, carriedMaker, carriedMakerSum = "", "", "", ""
