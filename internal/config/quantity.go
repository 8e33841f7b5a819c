package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration reads "500ms", "10s", "5m", or a bare number of seconds. It is
// never negative.
func Duration(s string) (time.Duration, error) {
	text := strings.TrimSpace(s)
	d, err := time.ParseDuration(text)
	if seconds, numeric := strconv.ParseFloat(text, 64); numeric == nil {
		d, err = fromSeconds(seconds)
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is not a duration", s)
	case d < 0:
		return 0, fmt.Errorf("duration %q is negative", s)
	}
	return d, nil
}

// days is Duration, and "7d" too.
func days(s string) (time.Duration, error) {
	number, found := strings.CutSuffix(strings.TrimSpace(s), "d")
	n, err := strconv.ParseFloat(number, 64)
	if !found || err != nil {
		return Duration(s)
	}
	d, err := fromSeconds(n * 24 * 60 * 60)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is not a duration", s)
	case d < 0:
		return 0, fmt.Errorf("duration %q is negative", s)
	}
	return d, nil
}

var errRange = errors.New("out of range")

func fromSeconds(seconds float64) (time.Duration, error) {
	ns := seconds * float64(time.Second)
	if math.IsNaN(ns) || math.Abs(ns) >= math.MaxInt64 {
		return 0, errRange
	}
	return time.Duration(ns), nil
}

// durationExample is what to write for a duration.
const durationExample = `"500ms", "10s", "5m", or a number of seconds`

// sizeUnits are those of Docker: all are powers of 1024.
var sizeUnits = map[string]int{
	"": 0, "b": 0,
	"k": 10, "kb": 10, "kib": 10,
	"m": 20, "mb": 20, "mib": 20,
	"g": 30, "gb": 30, "gib": 30,
	"t": 40, "tb": 40, "tib": 40,
}

// size reads a size of memory: "512m", "1GiB", "1.5g", or a number of bytes.
func size(s string) (int64, error) {
	text := strings.ToLower(strings.TrimSpace(s))
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz ")
	unit, known := sizeUnits[strings.TrimSpace(text[len(digits):])]
	number, err := strconv.ParseFloat(digits, 64)
	n := math.Ldexp(number, unit)
	if !known || err != nil || math.IsNaN(n) || n < 1 || n >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	return int64(n), nil
}
