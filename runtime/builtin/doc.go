// Package builtin runs services as containers where no engine is needed: images
// of internal/oci, made into containers by internal/pid1. Linux only.
//
// A container is a run of the process runtime, whose main process makes the
// container, stands for it outside and ends as its main program did. So
// everything that holds for processes holds here: nothing survives a stop, the
// keeper stores the output, and what an earlier daemon left is found and ended
// as a process.
//
// Memory, processors and the number of processes are limited by control groups
// that the keeper makes. An empty volume gets what the image has at its place.
//
// What the containers need on disk is below one directory: images, and for each
// container what it has written over its image. Named volumes outlive containers
// and are removed by RemoveVolumes alone.
//
// Root's containers have the machine's users. Those of anybody else have one,
// who is that user outside, or with RangeUser as many as the system has set
// apart for him: then the files of images belong to whom they should, and only
// a process among those users can delete them, which Remove and Sweep see to.
// An image is stored for each of both.
//
// It is for images that you trust. A container sees its own files, processes,
// users and network, and has Docker's default capabilities and system calls;
// but its limits are the kernel's alone.
package builtin
