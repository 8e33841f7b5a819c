package remote

import (
	"bytes"
	"time"

	"github.com/locald/locald/runtime"
)

// The methods of a Runtime and its instances. What a name means is with the
// contract's method of that name.
const (
	methodPrepare = "prepare"
	methodStart   = "start"
	methodList    = "list"
	methodAttach  = "attach"
	methodInfo    = "info"
	methodWait    = "wait"
	methodStop    = "stop"
	methodRemove  = "remove"
	methodExec    = "exec"
	methodHealth  = "health"
	methodPaused  = "paused"

	methodPing          = "ping"
	methodEngine        = "engine"
	methodAt            = "at"
	methodHasVolume     = "has-volume"
	methodRemoveVolumes = "remove-volumes"
	methodSweep         = "sweep"
	methodImages        = "images"
	methodPruneImages   = "prune-images"
)

// args are those of every method; each uses what it needs.
type args struct {
	Runtime string        `json:"runtime"` // by its name
	Spec    *specOnWire   `json:"spec,omitempty"`
	Owner   runtime.Owner `json:"owner,omitempty"`
	Ref     runtime.Ref   `json:"ref,omitzero"`
	Grace   time.Duration `json:"grace,omitempty"`
	Run     runtime.RunID `json:"run,omitempty"`
	Project string        `json:"project,omitempty"`
	Service string        `json:"service,omitempty"`
	Names   []string      `json:"names,omitempty"`
}

// specOnWire is a spec of which what may not be UTF-8 travels as bytes.
type specOnWire struct {
	runtime.Spec
	Command []byte `json:"command"` // each ends with NUL
	Env     []byte `json:"env"`
	Dir     []byte `json:"dir"`
	Log     []byte `json:"log"`
}

func packSpec(s runtime.Spec) *specOnWire {
	w := &specOnWire{Spec: s, Command: join(s.Command), Env: join(s.Env), Dir: []byte(s.Dir), Log: []byte(s.Log)}
	w.Spec.Command, w.Spec.Env, w.Spec.Dir, w.Spec.Log = nil, nil, "", ""
	return w
}

func (w *specOnWire) unpack() runtime.Spec {
	if w == nil {
		return runtime.Spec{}
	}
	s := w.Spec
	s.Command, s.Env, s.Dir, s.Log = split(w.Command), split(w.Env), string(w.Dir), string(w.Log)
	return s
}

func join(texts []string) []byte {
	var b []byte
	for _, text := range texts {
		b = append(append(b, text...), 0)
	}
	return b
}

func split(b []byte) []string {
	var texts []string
	for text := range bytes.SplitSeq(bytes.TrimSuffix(b, []byte{0}), []byte{0}) {
		texts = append(texts, string(text))
	}
	if len(b) == 0 {
		return nil
	}
	return texts
}

// started is an instance on its way.
type started struct {
	Ref  runtime.Ref  `json:"ref"`
	Info runtime.Info `json:"info"`
	Can  abilities    `json:"can"`
}

// abilities are the optional parts of the contract that an instance has. What only
// processes have is not among them: those are asked where they are.
type abilities struct {
	Health bool `json:"health,omitempty"`
	Pause  bool `json:"pause,omitempty"`
}

func abilitiesOf(in runtime.Instance) abilities {
	_, health := in.(runtime.HealthReporter)
	_, pause := in.(runtime.Pauser)
	return abilities{Health: health, Pause: pause}
}

// executed is what came of an Exec.
type executed struct {
	Exit   runtime.Exit `json:"exit"`
	Output []byte       `json:"output"`
}

// pruned is what came of a PruneImages.
type pruned struct {
	Removed []runtime.StoredImage `json:"removed"`
	Freed   int64                 `json:"freed"`
}
