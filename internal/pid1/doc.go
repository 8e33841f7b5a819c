// Package pid1 makes and is a container: it is both processes of the hidden
// command "locald container", and the way to reach them.
//
// It pulls and unpacks nothing, chooses no addresses and no user, restarts
// nothing and writes no log: what it is told in a Spec it does once. It knows
// neither services nor projects. It is a leaf: it imports no other room of
// locald, and the network is handed to Main.
//
// # Two processes
//
// The outer process is what whoever wants a container starts: in the host's
// namespaces, with the Spec as its argument and the container's environment as
// its own. It starts the inner one, which is PID 1 of new namespaces, serves the
// container's network, hands on the signals that it gets, and ends with the code
// of the main program, or with 128 and its signal. When it ends for whatever
// reason, the inner one reads the end of their connection and ends too, and the
// kernel then ends all that is in the container.
//
// The inner process makes the root: an overlay of the image's layers, what the
// kernel shows, mounts, and files that say who the container is. It starts the
// main program, then hands on signals, reaps, and starts further commands for
// whoever connects to the control socket. It is PID 1, so what it does not
// handle it does not get, and its end is that of the container.
//
// Whoever is root on this machine gets a container without a user namespace.
// Anybody else gets one in which a single user of the container is the user
// himself, so that all files stay his own; or, with a Range, as many as the
// system has set apart for him, of whom he is root. What those own he can delete
// as root of such a namespace only, as Remove does.
//
// The outer process may be given control groups, by descriptors that it inherits.
// It starts the inner one in them and stays outside.
//
// # Containers of an engine
//
// With Engine in its Spec the outer process makes no container but only its
// network namespace, and waits. An engine makes the container in that namespace,
// with our program as its first process (Guest). That is the inner process: it
// comes to the outer one, gets environment and standard streams, and is from then
// on like any other. Root and limits are the engine's to make.
//
// # The directory of a container
//
//	status     how the start ended, written once; Ready reads it
//	bell       a FIFO that wakes Ready
//	control    the socket of Exec
//	upper      what the container has written
//	work       the overlay's own
//	volumes    of the container alone, where a Mount has its Source there
//
// And of one that an engine makes, instead of the last two:
//
//	outer      the socket on which the inner process is waited for
//	network    a link to the network namespace, made once it is waited for
//	hosts, hostname, resolv.conf
//
// # What holds a program in
//
// Namespaces, Docker's default capabilities as the most that can be had, and
// Docker's default system calls. That keeps honest programs apart; it is not
// meant to hold hostile ones.
package pid1
