package pid1

import (
	"fmt"
	goruntime "runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// span is a range of numbers, both ends in it.
type span struct{ first, last uint32 }

// allowance is what one kind of machine may ask of the kernel.
type allowance struct {
	arch                               uint32
	clone, clone3, personality, socket uint32
	always                             []span // in ascending order
}

// others are the machines whose programs run here as well.
var others = map[string]string{"amd64": "386", "arm64": "arm"}

// Where the kernel puts what a filter decides by, in struct seccomp_data.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

// x32 is set in the numbers of a third kind of amd64 programs, which nobody has.
const x32 = 0x40000000

const (
	allow   = unix.SECCOMP_RET_ALLOW
	refuse  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	unknown = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS) // programs try something older then
)

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func decide(what uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: what}
}

// jump skips so many instructions if the comparison holds or does not.
func jump(how uint16, with uint32, holds, not int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | how, K: with, Jt: uint8(holds), Jf: uint8(not)}
}

// within allows what is loaded if it is in one of the spans.
func within(spans []span) (code []unix.SockFilter) {
	for _, s := range spans {
		code = append(code,
			jump(unix.BPF_JGE, s.first, 0, 2),
			jump(unix.BPF_JGT, s.last, 1, 0),
			decide(allow))
	}
	return code
}

// unless skips the code if the number of the call is another.
func unless(number uint32, code ...unix.SockFilter) []unix.SockFilter {
	return append([]unix.SockFilter{jump(unix.BPF_JEQ, number, 0, len(code))}, code...)
}

// wide are the offsets of both halves of an argument.
func wide(argument int) (low, high uint32) {
	low = offsetArgs + 8*uint32(argument)
	high = low + 4
	if bigEndian {
		low, high = high, low
	}
	return low, high
}

var bigEndian = *(*byte)(unsafe.Pointer(&[]uint16{1}[0])) == 0

// oneOf allows a call whose first argument is in one of the spans.
func oneOf(spans []span) []unix.SockFilter {
	low, high := wide(0)
	code := []unix.SockFilter{load(high), jump(unix.BPF_JEQ, 0, 1, 0), decide(refuse), load(low)}
	return append(append(code, within(spans)...), decide(refuse))
}

// code decides about the calls of one kind of machine. The number of the call
// is loaded.
func (a allowance) code(goarch string) (code []unix.SockFilter) {
	if goarch == "amd64" {
		code = append(code, jump(unix.BPF_JGE, x32, 0, 1), decide(unknown))
	}
	flags, _ := wide(0)
	if goarch == "s390x" {
		flags, _ = wide(1)
	}
	code = append(code, unless(a.clone, load(flags), jump(unix.BPF_JSET, namespaceFlags, 0, 1), decide(refuse), decide(allow))...)
	code = append(code, unless(a.clone3, decide(unknown))...) // its flags are out of a filter's reach
	code = append(code, unless(a.socket, oneOf(families)...)...)
	var wanted []span
	for _, p := range personalities {
		wanted = append(wanted, span{p, p})
	}
	code = append(code, unless(a.personality, oneOf(wanted)...)...)
	code = append(code, within(a.always)...)
	// What is younger than the profile is not there, so that programs can do
	// without.
	newest := a.always[len(a.always)-1].last
	return append(code, jump(unix.BPF_JGT, newest, 1, 0), decide(refuse), decide(unknown))
}

// filter is the program for all kinds of processes that a machine can have.
func filter(goarch string) ([]unix.SockFilter, error) {
	program := []unix.SockFilter{load(offsetArch)}
	for _, name := range []string{goarch, others[goarch]} {
		a, ok := allowances[name]
		if name == "" {
			continue
		}
		if !ok {
			return nil, fmt.Errorf("there is no list of system calls for %s", name)
		}
		code := append([]unix.SockFilter{load(offsetNumber)}, a.code(name)...)
		program = append(program, jump(unix.BPF_JEQ, a.arch, 1, 0), unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(code))})
		program = append(program, code...)
	}
	return append(program, decide(unknown)), nil
}

// confine gives the filter to the calling thread, and to what it forks.
func confine() error {
	program, err := filter(goruntime.GOARCH)
	if err != nil {
		return err
	}
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&fprog)))
	goruntime.KeepAlive(program)
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}
