// Package oci pulls, stores and unpacks container images where no engine does
// it: from a registry into directories that a kernel overlay takes as they are.
//
// It runs nothing, mounts nothing and builds nothing, and it knows neither
// services nor projects. It is a leaf: it imports no other room of locald.
//
// # Store
//
// A store is a directory of one user, 0700:
//
//	blobs/HEX         manifests and configurations, named by their digest; the time
//	                  of a manifest is when its image was last used
//	layers/HEX/fs     one layer, unpacked, named by the digest of its tar
//	layers/HEX/layer.json
//	refs/HEX.json     which manifest a reference stands for, named by the reference
//	leases/HEX.json   which manifest an owner uses, named by the owner
//	partial/          downloads that broke off
//	tmp/, trash/      what is being made, and what is being removed
//	locks/, lock      held, not read
//
// Everything is made beside its place and renamed into it, so what has a name
// is whole. Processes and goroutines that share a store keep each other off by
// flock: one lock for each layer while it is made, and one for the whole store,
// shared for the moment in which a pull or a lease writes down what it needs,
// exclusive for the moment in which Prune and Remove decide. Those rename to
// trash and delete afterwards, so nobody waits for that.
//
// Nothing is synced: everything can be had again. A manifest or a configuration
// that a power cut has damaged is told by its digest. A layer is counted and
// measured when it is used for the first time in another boot than the one that
// made it, because file systems lose the length of a file together with its
// content; one that is not what it was is pulled again.
//
// # Layers
//
// A layer is unpacked by itself, as an overlay wants it. As root, owners,
// setuid bits, security.capability and user.* attributes are kept. Otherwise
// everything belongs to the user, and setuid and setgid bits of files are
// dropped, unless Options.Own gives both to whom they belong. Device nodes are never made: an image that is run without a device
// cgroup could read the host's disks through them, and a container's /dev is
// made by whoever runs it. Directories that a layer does not mention are 0755.
//
// Names are taken from the image's root, as in a chroot: a leading slash is
// none, and links are followed inside. A name or a link on the way that climbs
// above the root is an error.
package oci
