package container

import (
	"bytes"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"

	"github.com/locald/locald/runtime"
)

const (
	keptLines  = 3   // of what the last step wrote, for the error
	longest    = 200 // bytes of such a line
	internally = "[internal] "
)

// steps follows a build: what it does goes to report, and what it has done and
// written into the service's log.
type steps struct {
	image  string
	report func(runtime.Progress)
	note   func(text string)

	mu        sync.Mutex // sending and building overlap
	step      string     // as the builder calls it
	told      time.Time
	line      []byte // begun by the older builder
	kept      []string
	names     map[string]string              // of BuildKit's vertexes, by digest
	noted     map[string]bool                // vertexes that are in the log
	downloads map[string]map[string]download // by vertex and id
	open      map[string][]byte              // what a vertex wrote of its last line
}

func newSteps(spec runtime.Spec, report func(runtime.Progress), note func(log string, run int, text string)) *steps {
	s := &steps{
		image: spec.Image.Name, report: report, note: func(string) {},
		names: map[string]string{}, noted: map[string]bool{}, downloads: map[string]map[string]download{}, open: map[string][]byte{},
	}
	if note != nil {
		s.note = func(text string) { note(spec.Log, spec.Run, text) }
	}
	return s
}

// sent says how much of the context has been sent.
func (s *steps) sent(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.step == "" {
		s.report(runtime.Progress{Step: "building " + s.image + ": sending the context", Current: n})
	}
}

// begin tells of a step, but not of how the files come to where BuildKit has
// them.
func (s *steps) begin(step string) {
	if step == internally+"load remote build context" || step == "copy /context /" {
		return
	}
	s.step, s.kept = step, nil
	s.report(runtime.Progress{Step: "building " + s.image + ": " + strings.TrimPrefix(step, internally)})
}

// wrote takes lines that a step wrote.
func (s *steps) wrote(lines []byte) {
	for line := range bytes.Lines(lines) {
		text := strings.ToValidUTF8(strings.TrimRight(colours().ReplaceAllString(string(line), ""), "\r\n \t"), "�")
		if text == "" {
			continue
		}
		s.note("build: " + text)
		s.kept = append(s.kept, text[:min(len(text), longest)])
		s.kept = s.kept[max(0, len(s.kept)-keptLines):]
	}
}

// colours are what a terminal would take for one.
var colours = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]") })

// trace follows BuildKit.
func (s *steps) trace(message []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := parseTrace(message)
	for _, v := range t.vertexes {
		s.names[v.digest] = v.name
		switch {
		case v.err != "" && s.step != v.name:
			s.begin(v.name)
		case v.began && !v.through:
			s.begin(v.name)
			s.noteStep(v)
		}
		if v.through {
			s.wrote(s.open[v.digest])
			delete(s.open, v.digest)
		}
	}
	for _, w := range t.output {
		// Steps that do not need each other are run at once.
		if name := s.names[w.vertex]; name != s.step {
			s.begin(name)
		}
		text := append(s.open[w.vertex], w.text...)
		end := bytes.LastIndexByte(text, '\n') + 1
		s.wrote(text[:end])
		s.open[w.vertex] = bytes.Clone(text[end:])
	}
	s.fetched(t.downloads)
}

// noteStep puts a step into the log that is no work of the builder's own.
func (s *steps) noteStep(v vertex) {
	if strings.HasPrefix(v.name, "[") && !strings.HasPrefix(v.name, internally) && !s.noted[v.digest] {
		s.noted[v.digest] = true
		s.note("build: " + v.name)
	}
}

// fetched adds up what is fetched for one step.
func (s *steps) fetched(downloads []download) {
	for _, d := range downloads {
		if d.total == 0 {
			continue
		}
		if s.downloads[d.vertex] == nil {
			s.downloads[d.vertex] = map[string]download{}
		}
		s.downloads[d.vertex][d.id] = d
		const interval = time.Second / 10
		if now := time.Now(); now.Sub(s.told) >= interval {
			s.told = now
			p := runtime.Progress{Step: "building " + s.image + ": " + strings.TrimPrefix(s.names[d.vertex], internally)}
			for _, one := range s.downloads[d.vertex] {
				p.Current += one.current
				p.Total += one.total
			}
			s.report(p)
		}
	}
}

// olderStep is how the older builder and Podman begin one.
var olderStep = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(?i:step) (\d+/\d+) ?: (.*)$`) })

// stream follows the older builder and Podman, which send what a terminal would
// show.
func (s *steps) stream(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line = append(s.line, text...)
	for {
		line, rest, whole := bytes.Cut(s.line, []byte("\n"))
		if !whole && !olderStep().Match(line) {
			return
		}
		s.line = rest
		s.say(string(line))
		if !whole {
			return
		}
	}
}

// imageID is all of a line with which Podman ends.
var imageID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9a-f]{64}$`) })

func (s *steps) say(line string) {
	if m := olderStep().FindStringSubmatch(line); m != nil {
		if strings.HasPrefix(m[2], "LABEL ") && strings.Contains(m[2], labelBuilt) {
			return // ours
		}
		s.begin("[" + m[1] + "] " + m[2])
		s.note("build: " + s.step)
		return
	}
	for _, prefix := range []string{" --->", "--> ", "Removing intermediate container ", "Successfully ", "COMMIT "} {
		if strings.HasPrefix(line, prefix) {
			return
		}
	}
	if !imageID().MatchString(line) {
		s.wrote([]byte(line))
	}
}

// where is the step at which it stands, for a sentence.
func (s *steps) where() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.step == "" || strings.HasPrefix(s.step, internally) {
		return ""
	}
	return s.step + ": "
}

// last is the last that the step wrote, for the end of a sentence.
func (s *steps) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) == 0 {
		return ""
	}
	return ": " + strings.Join(s.kept, " / ")
}

// base is the image that the step at which it stands begins with, and its
// registry; empty where it is another kind of step.
func (s *steps) base() (image, domain string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, image, ok := strings.Cut(s.step, "load metadata for ")
	if !ok {
		_, image, ok = strings.Cut(s.step, "] FROM ")
	}
	image, _, _ = strings.Cut(image, " ")
	name, err := reference.ParseNormalizedNamed(image)
	if !ok || err != nil {
		return "", ""
	}
	return image, reference.Domain(name)
}
