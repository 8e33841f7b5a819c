package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/locald/locald/ipc"
)

func (a *app) port() *cobra.Command {
	return &cobra.Command{
		Use:   "port SERVICE [NAME]",
		Short: "Print the port of a service on this machine",
		Long: `Prints the number of the port where a service is reached on 127.0.0.1, or of
one of its other ports by name. Exits with 3 when it has none at the moment.`,
		Example: `  curl localhost:$(locald port web)
  locald port web metrics`,
		Args:              services(1, 2),
		ValidArgsFunction: a.completeService,
		RunE: func(cmd *cobra.Command, args []string) error {
			project, err := a.project()
			if err != nil {
				return err
			}
			var status ipc.Status
			client, err := a.connect(cmd.Context(), startIfWanted)
			switch {
			case errors.Is(err, ipc.ErrNoDaemon):
				status, err = a.idleStatus(args[:1])
			case err == nil:
				err = client.Call(cmd.Context(), ipc.CallStatus, ipc.StatusArgs{Project: project, Services: args[:1], Settle: true}, &status)
			}
			if err != nil {
				return err
			}
			number, err := portOf(status, args)
			if err != nil {
				return err
			}
			a.stdout.say(strconv.Itoa(number) + "\n")
			return nil
		},
	}
}

// portOf is the port that args name: a service and perhaps one of its ports.
func portOf(status ipc.Status, args []string) (int, error) {
	for _, s := range status.Services {
		if s.Name != args[0] {
			continue
		}
		number := s.Port
		if len(args) == 2 {
			var known bool
			if number, known = s.Ports[args[1]]; !known && s.Desired == "up" {
				fault := &ipc.Error{Code: ipc.CodeInvalidRequest, Service: s.Name, Message: fmt.Sprintf("%s has no port %q", s.Name, args[1])}
				if names := sortedKeys(s.Ports); len(names) > 0 {
					fault.Hint = "its ports: " + strings.Join(names, ", ")
				}
				return 0, fault
			}
		}
		if number == 0 || s.Desired != "up" {
			return 0, noPort(s)
		}
		return number, nil
	}
	return 0, &ipc.Error{Code: ipc.CodeUnknownService, Service: args[0], Message: fmt.Sprintf("no service %q", args[0])}
}

func noPort(s ipc.Service) error {
	fault := &ipc.Error{Code: ipc.CodeExited, Service: s.Name, Exit: exitNothing, Message: s.Name + " has no port"}
	if s.Desired != "up" {
		fault.Message = s.Name + " is not up"
		fault.Hint = "locald up " + s.Name
	}
	return fault
}
