package keeper

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"testing"
)

// What a program of the system and one for a machine of 32 bits are loaded by.
func TestLoader(t *testing.T) {
	t.Parallel()
	f, err := os.Open("/bin/sh")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	program, err := elf.NewFile(f)
	if err != nil {
		t.Skip(err)
	}
	for _, p := range program.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name, _ := io.ReadAll(p.Open())
		if got, want := loader(f), string(bytes.TrimRight(name, "\x00")); got != want {
			t.Errorf("/bin/sh is loaded by %q; want %q", got, want)
		}
	}

	const old = "/lib/ld-linux.so.2"
	var b bytes.Buffer
	header := elf.Header32{Type: uint16(elf.ET_EXEC), Phoff: 52, Phentsize: 32, Phnum: 1}
	copy(header.Ident[:], "\x7fELF\x01\x01\x01")
	for _, part := range []any{header, elf.Prog32{Type: uint32(elf.PT_INTERP), Off: 84, Filesz: uint32(len(old) + 1)}, []byte(old + "\x00")} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{b.String(): old, b.String()[:60]: "", "#!/bin/sh": "", "": ""} {
		if got := loader(bytes.NewReader([]byte(name))); got != want {
			t.Errorf("%q is loaded by %q; want %q", name, got, want)
		}
	}
}
