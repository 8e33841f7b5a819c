package keeper

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
)

// Variable is the environment variable that marks the processes of a run. Its
// value is "<owner>/<run>", followed after a comma by the value that the keeper
// itself inherited when it runs inside a service of another locald.
const Variable = "LOCALD_MARK"

// Mark is what the processes of one run carry.
type Mark struct {
	Owner string
	Run   string // empty when only the number was found

	// Number is the hard limit of RLIMIT_LOCKS, or 0 where it could not be
	// lowered. From the top: 2 bits zero, 4 bits nesting depth counting down from
	// 15, 24 bits hashed from the owner, 8 bits drawn by the keeper, 26 bits
	// counting down over the keeper's runs. A nested locald has a lower depth,
	// hence always a lower number. The lowest bit is 1 for a run and 0 for the
	// keeper itself, which must not be taken for the run it started last.
	Number uint64
}

const (
	depthShift    = 58
	instanceShift = 34
	drawnShift    = 26

	outermost = 15
	foreign   = 1 << 62 // limits from here on are not ours: "unlimited" is one of them
)

// Same reports whether two marks of one boot are of one run: one number unless
// the names differ, or one name where a number is missing.
func (m Mark) Same(other Mark) bool {
	named := m.Run != "" && other.Run != ""
	if m.Owner != other.Owner || named && m.Run != other.Run {
		return false
	}
	if m.Number != 0 && other.Number != 0 {
		return m.Number == other.Number
	}
	return named
}

func (m Mark) variable(inherited string) string {
	value := Variable + "=" + m.Owner + "/" + m.Run
	if inherited != "" {
		value += "," + inherited
	}
	return value
}

func instanceOf(owner string) uint64 {
	sum := sha256.Sum256([]byte(owner))
	return binary.BigEndian.Uint64(sum[:]) >> 40
}

// numberOf returns the run that a limit names, if it is one of the owner's.
func numberOf(owner string, limit uint64) (number uint64, ok bool) {
	if limit >= foreign || limit&1 == 0 || limit>>depthShift == 0 {
		return 0, false
	}
	if limit>>instanceShift&(1<<24-1) != instanceOf(owner) {
		return 0, false
	}
	return limit, true
}

// runsOf returns the runs of the owner that an environment names.
func runsOf(owner string, environ []byte) (runs []string) {
	for entry := range bytes.SplitSeq(environ, []byte{0}) {
		value, ok := bytes.CutPrefix(entry, []byte(Variable+"="))
		if !ok {
			continue
		}
		for one := range strings.SplitSeq(string(value), ",") {
			if run, ok := strings.CutPrefix(one, owner+"/"); ok {
				runs = append(runs, run)
			}
		}
	}
	return runs
}

func checkOwner(owner string) error {
	if owner == "" || strings.ContainsAny(owner, ",\x00\n") {
		return fmt.Errorf("owner %q: empty, or with a comma or a line end in it", owner)
	}
	return nil
}

// numbers deals the numbers of one keeper. lower sets the hard limit of this
// process.
type numbers struct {
	own   uint64 // the limit of the keeper itself, even; 0 when there are no numbers
	lower func(limit uint64) error
}

// newNumbers prepares the numbers below the limit that this process inherited.
func newNumbers(owner string, inherited uint64, drawn byte, lower func(uint64) error) numbers {
	depth := uint64(outermost)
	if inherited < foreign {
		depth = inherited >> depthShift
		if depth <= 1 {
			return numbers{}
		}
		depth--
	}
	own := depth<<depthShift | instanceOf(owner)<<instanceShift | uint64(drawn)<<drawnShift | (1<<drawnShift - 2)
	if lower(own) != nil {
		return numbers{}
	}
	return numbers{own: own, lower: lower}
}

// next gives this process the number of a new run, so that a child forked
// before done is called inherits it. It returns 0 where there is none.
func (n *numbers) next() (number uint64, done func()) {
	if n.own&(1<<drawnShift-1) < 2 {
		return 0, func() {}
	}
	number = n.own - 1
	if n.lower(number) != nil {
		n.own = 0
		return 0, func() {}
	}
	return number, func() {
		n.own -= 2
		if n.lower(n.own) != nil {
			n.own = 0
		}
	}
}
