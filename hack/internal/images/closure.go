package images

import (
	"debug/elf"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// libraries finds what the programs need to run: their interpreter and the
// shared libraries, as path in the image to path on this machine. Files that
// are not ELF need nothing.
func libraries(programs []string) (map[string]string, error) {
	dirs, err := filepath.Glob("/usr/lib/*-linux-gnu*")
	if err != nil {
		return nil, err
	}
	found, seen := map[string]string{}, map[string]bool{}
	for queue := programs; len(queue) > 0; queue = queue[1:] {
		if seen[queue[0]] {
			continue
		}
		seen[queue[0]] = true
		interpreter, names := needs(queue[0])
		if interpreter != "" {
			found["usr"+strings.TrimPrefix(interpreter, "/usr")] = interpreter
		}
		for _, name := range names {
			for _, dir := range append(dirs, "/usr/lib", "/usr/lib64") {
				p := filepath.Join(dir, name)
				if _, err := os.Stat(p); err == nil {
					found[p[1:]] = p
					queue = append(queue, p)
					break
				}
			}
		}
	}
	return found, nil
}

func needs(program string) (interpreter string, names []string) {
	f, err := elf.Open(program)
	if err != nil {
		return "", nil
	}
	defer f.Close()
	for _, part := range f.Progs {
		if part.Type == elf.PT_INTERP {
			b, _ := io.ReadAll(part.Open())
			interpreter = strings.TrimRight(string(b), "\x00")
		}
	}
	names, _ = f.ImportedLibraries()
	return interpreter, names
}

// programs adds those of the named programs that this machine has.
func (l layer) programs(names ...string) error {
	var paths []string
	for _, name := range names {
		p, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		if err := l.copy("usr/bin/"+path.Base(name), p); err != nil {
			return err
		}
		paths = append(paths, p)
	}
	return l.libraries(paths)
}

func (l layer) libraries(programs []string) error {
	found, err := libraries(programs)
	if err != nil {
		return err
	}
	for p, source := range found {
		if err := l.copy(p, source); err != nil {
			return err
		}
	}
	return nil
}
