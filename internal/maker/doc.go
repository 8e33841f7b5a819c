// Package maker is what makes a builtin container: internal/pid1 with the network
// of internal/network. Both cmd/locald and the small cmd/maker are it.
//
// It knows neither images nor services, and may import nothing else: each package
// that it brings is initialised twice for every container.
package maker
