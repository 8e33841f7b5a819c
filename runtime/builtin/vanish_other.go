//go:build !linux

package builtin

type vanishing struct{}

func (*vanishing) watch(string, func()) (stop func()) { return func() {} }
