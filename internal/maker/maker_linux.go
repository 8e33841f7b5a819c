package maker

import (
	"context"
	"encoding/json"
	"errors"
	"os"

	"github.com/locald/locald/internal/network"
	"github.com/locald/locald/internal/pid1"
)

// Main is the hidden command "locald container", and returns the exit status.
func Main(args []string) int { return pid1.Main(args, userSpace{}) }

// userSpace is internal/network as pid1 takes it.
type userSpace struct{}

func (userSpace) Attach() (*os.File, error) { return network.Attach() }

func (userSpace) Open(config json.RawMessage) (pid1.Gateway, error) {
	var c network.Config
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, err
	}
	n, err := network.Open(c)
	if err != nil {
		if port, ok := errors.AsType[*network.PortError](err); ok {
			return nil, &pid1.Error{Kind: pid1.PortTaken, What: "network", Why: port.Error()}
		}
		return nil, err
	}
	return gateway{n}, nil
}

type gateway struct{ *network.Network }

func (g gateway) Serve(ctx context.Context, link *os.File) error { return g.Network.Serve(ctx, link) }
