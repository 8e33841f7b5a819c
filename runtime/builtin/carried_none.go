//go:build !carried

package builtin

var carried []byte
