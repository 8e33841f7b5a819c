//go:build carried

package engines

import _ "embed"

// The programs as "make build" made them, and of each the beginning of its SHA-256.
var (
	//go:embed engines.bin
	carriedEngines string
	//go:embed engines.sum
	carriedEnginesSum string
	//go:embed maker.bin
	carriedMaker string
	//go:embed maker.sum
	carriedMakerSum string
)
