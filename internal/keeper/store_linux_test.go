package keeper

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// When the last stream of a log has ended the keeper has none of it open.
func TestStoresAreClosed(t *testing.T) {
	t.Parallel()
	k := open(t)
	r := shell(t, "echo out; echo err >&2")
	r.Log, _ = filepath.EvalSymlinks(r.Log)
	for range 3 {
		await(t, start(t, k, r))
	}
	k.Note(r.Log, 1, "over")
	if err := k.Flush(bounded(t), r.Log, 1); err != nil {
		t.Fatal(err)
	}
	fds := "/proc/" + strconv.Itoa(k.PID()) + "/fd"
	entries, err := os.ReadDir(fds)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if target, _ := os.Readlink(filepath.Join(fds, entry.Name())); strings.HasPrefix(target, r.Log) {
			t.Errorf("the keeper has %s open", target)
		}
	}
	if got := lines(t, r.Log); len(got) != 7 || got[6] != "event over" {
		t.Errorf("got %q", got)
	}
}

// A full disk is told once when it begins and once when it ends, with what is
// missing.
func TestFullDisk(t *testing.T) {
	t.Attr("promise", "P11 F59")
	if os.Geteuid() != 0 {
		t.Skip("not root: no small file system can be mounted")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("mount: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("%v %s", err, out)
		}
	})
	said, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	k, err := Start(t.Context(), Options{Dir: t.TempDir(), Owner: uniqueOwner(t), Log: said})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 200<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	r := shell(t, `i=0; while [ $i -lt 8000 ]; do echo "line $i of a service that goes on and on and on"; i=$((i+1)); done`)
	r.Log = filepath.Join(dir, "web")
	c := start(t, k, r)
	log := func() string {
		b, err := os.ReadFile(said.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	awaitWord := func(word string) {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for until := time.Now().Add(limit); !strings.Contains(log(), word); <-tick.C {
			if time.Now().After(until) {
				t.Fatalf("the keeper does not say %q: %s", word, log())
			}
		}
	}
	awaitWord("output is not stored")
	await(t, c)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	awaitWord("output is stored again")
	said1, said2 := strings.Count(log(), "output is not stored"), strings.Count(log(), "output is stored again")
	if said1 != 1 || said2 != 1 || !strings.Contains(log(), "no space left on device") || strings.Contains(log(), "missing_bytes=0") {
		t.Errorf("the keeper says:\n%s", log())
	}
}
