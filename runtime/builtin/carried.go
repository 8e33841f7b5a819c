//go:build carried

package builtin

import _ "embed"

// carried is cmd/maker, packed by "make build".
//
//go:embed maker.gz
var carried []byte
