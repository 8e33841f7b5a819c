// Command benchengines measures what makes containers side by side: the builtin
// engine, Docker, Podman, containerd and runc, those of them that the machine
// has. It starts and stops containers of a shell, and pulls and
// unpacks an image of Postgres from a registry of its own.
//
//	make bench-engines
//	go run -tags carried ./hack/benchengines -rounds 20 -only builtin,docker -out engines.jsonl
//
// It prints a table for people, medians with the least and the most, and writes
// each measurement as a line of JSON. Contestants take turns within each round,
// so that what else the machine does meets all of them. Numbers of different
// runs are not to be compared.
//
// # What is measured
//
//	start    from asking until the first byte of output has come where output is read:
//	         the image is there, the container is not
//	stop     from asking a program that ends at SIGTERM until whoever was asked says
//	         that it has ended
//	remove   from asking until what the container has written is deleted
//	pull     from asking until the image can be run; nothing of it was there
//
// In what way each contestant is driven is said where it is: builtin.go,
// docker.go (Podman too), containerd.go, runc.go.
//
// Containers have a network of their own with one published port, and in the
// other half of the measurements that of the host. Where the way of driving a
// contestant has no ports, its own network reaches nothing.
package main
