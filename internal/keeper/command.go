package keeper

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Look returns the path of the program that a run with this argv, directory and
// environment executes, or an *Error that says why there is none.
func Look(argv0, dir string, env []string) (string, error) {
	path, err := find(argv0, dir, env)
	if err != nil {
		return "", err
	}
	return path, nil
}

// find resolves argv[0] as a shell in dir would.
func find(argv0, dir string, env []string) (string, *Error) {
	if strings.Contains(argv0, "/") {
		path := within(dir, argv0)
		if e := executable(path); e != nil {
			return "", explain(argv0, path, dir, env, e)
		}
		return path, nil
	}
	var refused error
	var at string
	for _, place := range filepath.SplitList(variable(env, "PATH")) {
		path := within(dir, filepath.Join(place, argv0))
		err := executable(path)
		if err == nil {
			return path, nil
		}
		if errors.Is(err, fs.ErrPermission) && refused == nil {
			refused, at = err, path
		}
	}
	if refused != nil {
		return "", explain(argv0, at, dir, env, refused)
	}
	return "", explain(argv0, "", dir, env, unix.ENOENT)
}

func within(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// variable returns the last value of a name, which is the one that counts.
func variable(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(env[i], name+"="); ok {
			return value
		}
	}
	return ""
}

// executable returns nil, or why path cannot be executed.
func executable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	return unix.Access(path, unix.X_OK)
}

// explain turns the errno of an exec into words. path is empty when argv0 was
// in no directory of PATH.
func explain(argv0, path, dir string, env []string, cause error) *Error {
	if e := checkDir(dir); e != nil {
		return e
	}
	missing := func(format string, args ...any) *Error {
		return &Error{Code: "command_missing", Message: fmt.Sprintf(format, args...)}
	}
	switch {
	case path == "":
		e := missing("command %s: not found in PATH", argv0)
		if variable(env, "PATH") == "" {
			e.Message = fmt.Sprintf("command %s: not found, PATH is empty", argv0)
		}
		e.Hint = nearest(argv0, dir, filepath.SplitList(variable(env, "PATH")))
		return e
	case errors.Is(cause, unix.EISDIR):
		return missing("command %s: is a directory", path)
	case errors.Is(cause, unix.ENOENT), errors.Is(cause, unix.ENOTDIR):
		return absent(argv0, path, dir)
	case errors.Is(cause, unix.EACCES), errors.Is(cause, unix.EPERM):
		e := &Error{Code: "permission_denied", Message: fmt.Sprintf("command %s: permission denied", path)}
		if st, err := os.Stat(path); err == nil && st.Mode()&0o111 == 0 {
			e.Message = fmt.Sprintf("command %s: permission denied: it is not executable", path)
			e.Hint = "chmod +x " + quote(path)
		}
		return e
	case errors.Is(cause, unix.ENOEXEC):
		e := missing("command %s: exec format error", path)
		if script(path) {
			e.Hint = `put "#!/bin/sh" into its first line`
		}
		return e
	case errors.Is(cause, unix.EAGAIN):
		return &Error{Code: "internal", Message: fmt.Sprintf("command %s: the user has as many processes as are allowed", path), Hint: "ps -u $(id -u) | wc -l; ulimit -u"}
	case errors.Is(cause, unix.E2BIG):
		return &Error{Code: "config_invalid", Message: fmt.Sprintf("command %s: argument list and environment too long", path)}
	default:
		return &Error{Code: "internal", Message: fmt.Sprintf("command %s: %v", path, cause)}
	}
}

func checkDir(dir string) *Error {
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &Error{Code: "workdir_missing", Message: fmt.Sprintf("directory %s: no such file or directory", dir), Hint: "mkdir -p " + quote(dir)}
	case err != nil:
		return &Error{Code: "workdir_missing", Message: fmt.Sprintf("directory %s: %v", dir, errors.Unwrap(err))}
	case !st.IsDir():
		return &Error{Code: "workdir_missing", Message: fmt.Sprintf("directory %s: not a directory", dir)}
	case unix.Access(dir, unix.X_OK) != nil:
		return &Error{Code: "permission_denied", Message: fmt.Sprintf("directory %s: permission denied", dir)}
	}
	return nil
}

// absent tells a program that is not there from one whose interpreter is not.
func absent(argv0, path, dir string) *Error {
	e := &Error{Code: "command_missing"}
	if _, err := os.Stat(path); err == nil {
		e.Message = fmt.Sprintf("command %s: no such file or directory: its interpreter is missing", path)
		if name := interpreter(path); name != "" {
			e.Message = fmt.Sprintf("command %s: no such file or directory: its interpreter %s is missing", path, quote(name))
		}
		if strings.HasSuffix(e.Message, `\r' is missing`) {
			e.Hint = "sed -i 's/\\r$//' " + quote(path)
		}
		return e
	}
	e.Message = fmt.Sprintf("command %s: no such file or directory", path)
	e.Hint = nearest(filepath.Base(argv0), dir, []string{filepath.Dir(path)})
	return e
}

// script reports whether a file begins like text.
func script(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var head [64]byte
	n, _ := f.Read(head[:])
	for _, c := range head[:n] {
		if c == 0 {
			return false
		}
	}
	return n > 0
}

func interpreter(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	line, _ := bufio.NewReaderSize(f, 256).ReadString('\n')
	if rest, ok := strings.CutPrefix(line, "#!"); ok {
		name, _, _ := strings.Cut(strings.TrimLeft(strings.TrimSuffix(rest, "\n"), " \t"), " ")
		return name
	}
	return loader(f)
}

// loader is what an ELF program wants to be loaded by: its segment of type
// PT_INTERP. Package debug/elf brings decompressors and DWARF with it.
func loader(f io.ReaderAt) string {
	const narrow, wide, little, interpreter = 1, 2, 1, 3
	order := binary.LittleEndian
	header, segment := make([]byte, 64), make([]byte, 56)
	if n, _ := f.ReadAt(header, 0); n < len(header) || string(header[:4]) != "\x7fELF" || header[5] != little {
		return ""
	}
	var at, size, count int
	switch header[4] {
	case wide:
		at, size, count = int(order.Uint64(header[32:])), int(order.Uint16(header[54:])), int(order.Uint16(header[56:]))
	case narrow:
		at, size, count = int(order.Uint32(header[28:])), int(order.Uint16(header[42:])), int(order.Uint16(header[44:]))
	}
	for i := range count {
		if n, _ := f.ReadAt(segment, int64(at+i*size)); n < 40 || order.Uint32(segment) != interpreter {
			continue
		}
		offset, length := int64(order.Uint32(segment[4:])), uint64(order.Uint32(segment[16:]))
		if header[4] == wide {
			offset, length = int64(order.Uint64(segment[8:])), order.Uint64(segment[32:])
		}
		name := make([]byte, min(length, 4096))
		n, _ := f.ReadAt(name, offset)
		return strings.TrimRight(string(name[:n]), "\x00")
	}
	return ""
}

// quote makes a name fit for a shell and for a terminal.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%=", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	escaped := fmt.Sprintf("%q", s)
	return "'" + strings.ReplaceAll(escaped[1:len(escaped)-1], "'", `'\''`) + "'"
}

// nearest suggests the program with the most similar name.
func nearest(name, dir string, places []string) string {
	best, distance := "", 1+len(name)/3
	for _, place := range places {
		entries, err := os.ReadDir(within(dir, place))
		if err != nil {
			continue
		}
		for _, entry := range entries {
			if d := edits(name, entry.Name(), distance); d < distance && executable(filepath.Join(within(dir, place), entry.Name())) == nil {
				best, distance = entry.Name(), d
			}
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %s?", quote(best))
}

// edits counts the letters to insert, delete, replace or swap with a neighbour
// to get from a to b, and gives up at limit.
func edits(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return limit
	}
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[0] {
		rows[0][j] = j
	}
	before, last, row := rows[2], rows[0], rows[1]
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(row[j-1]+1, last[j]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
