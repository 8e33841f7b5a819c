package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"

	api "github.com/moby/moby/api/types/container"
	ports "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// dockerEngine is driven through the Docker API: create, attach, start; stop;
// remove. Output is read by attaching, which is sooner than from the engine's
// logs. Its own network is a bridge, as each project has one.
type dockerEngine struct {
	called string
	api    *client.Client
	image  string
	bridge string
	limits []*api.Ulimit
	late   bool         // nothing can be attached to before it has started
	end    func() error // of the service that is ours
}

func newDocker(ctx context.Context, _ string, images *served) (contestant, error) {
	return dockerEngine{called: "docker", end: func() error { return nil }}.connect(ctx, images, client.FromEnv)
}

func (d dockerEngine) connect(ctx context.Context, images *served, where client.Opt) (contestant, error) {
	var err error
	if d.api, err = client.New(where); err != nil {
		return nil, errors.Join(err, d.end())
	}
	d.image = images.shell
	d.bridge = "benchengines-" + strconv.Itoa(os.Getpid())
	if _, err = d.api.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err == nil {
		err = d.pull(ctx, d.image)
	}
	if err == nil {
		_, err = d.api.NetworkCreate(ctx, d.bridge, client.NetworkCreateOptions{Driver: "bridge"})
	}
	if err != nil {
		return nil, errors.Join(err, d.api.Close(), d.end())
	}
	return &d, nil
}

func (d *dockerEngine) name() string { return d.called }

func (d *dockerEngine) close(ctx context.Context) error {
	_, err := d.api.NetworkRemove(ctx, d.bridge, client.NetworkRemoveOptions{})
	return errors.Join(err, d.forget(ctx, d.image), d.api.Close(), d.end())
}

func (d *dockerEngine) start(ctx context.Context, network network) (container, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	inside, err := ports.ParsePort(strconv.Itoa(containerPort) + "/tcp")
	if err != nil {
		return nil, err
	}
	config := &api.Config{Image: d.image, Cmd: program}
	hosts := &api.HostConfig{NetworkMode: api.NetworkMode(d.bridge), Resources: api.Resources{Ulimits: d.limits}}
	if network == own {
		config.ExposedPorts = ports.PortSet{inside: {}}
		hosts.PortBindings = ports.PortMap{inside: {{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: strconv.Itoa(port)}}}
	} else {
		hosts.NetworkMode = "host"
	}
	made, err := d.api.ContainerCreate(ctx, client.ContainerCreateOptions{Config: config, HostConfig: hosts})
	if err != nil {
		return nil, err
	}
	c := &dockerContainer{d.api, made.ID}
	if err := c.run(ctx, d.late); err != nil {
		return nil, errors.Join(err, c.remove(context.WithoutCancel(ctx)))
	}
	return c, nil
}

type dockerContainer struct {
	api *client.Client
	id  string
}

func (c *dockerContainer) run(ctx context.Context, late bool) error {
	if late {
		if _, err := c.api.ContainerStart(ctx, c.id, client.ContainerStartOptions{}); err != nil {
			return err
		}
	}
	attached, err := c.api.ContainerAttach(ctx, c.id, client.ContainerAttachOptions{Stream: true, Stdout: true, Stderr: true, Logs: late})
	if err != nil {
		return err
	}
	defer attached.Close()
	if !late {
		if _, err := c.api.ContainerStart(ctx, c.id, client.ContainerStartOptions{}); err != nil {
			return err
		}
	}
	if _, err := attached.Reader.ReadByte(); err != nil {
		return fmt.Errorf("no output: %w", err)
	}
	return nil
}

func (c *dockerContainer) stop(ctx context.Context) error {
	_, err := c.api.ContainerStop(ctx, c.id, client.ContainerStopOptions{})
	return err
}

func (c *dockerContainer) remove(ctx context.Context) error {
	_, err := c.api.ContainerRemove(ctx, c.id, client.ContainerRemoveOptions{Force: true})
	return err
}

func (d *dockerEngine) pull(ctx context.Context, image string) error {
	answer, err := d.api.ImagePull(ctx, image, client.ImagePullOptions{})
	if err != nil {
		return err
	}
	return answer.Wait(ctx)
}

func (d *dockerEngine) forget(ctx context.Context, image string) error {
	_, err := d.api.ImageRemove(ctx, image, client.ImageRemoveOptions{Force: true, PruneChildren: true})
	return err
}
