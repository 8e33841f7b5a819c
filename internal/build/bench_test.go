package build_test

import (
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/locald/locald/internal/build"
)

// BenchmarkContext looks at, and sends, 20,000 files of 4 KiB, and what it takes
// to leave as many out.
func BenchmarkContext(b *testing.B) {
	files := map[string]string{"Dockerfile": "F"}
	content := fmt.Sprintf("%04096d", 0)
	for n := range 20_000 {
		files[fmt.Sprintf("packages/%d/%d/file-%d", n/1000, n/50%20, n)] = content
	}
	dir := tree(b, files)
	for _, ignored := range []string{"", "packages\n"} {
		write(b, filepath.Join(dir, ".dockerignore"), ignored)
		c, err := build.Open(dir, filepath.Join(dir, "Dockerfile"))
		if err != nil {
			b.Fatal(err)
		}
		name := "all"
		if ignored != "" {
			name = "excluded"
		}
		b.Run(name+"/digest", func(b *testing.B) {
			for b.Loop() {
				if _, err := c.Digest(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/tar", func(b *testing.B) {
			for b.Loop() {
				if err := c.Tar(b.Context(), io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
