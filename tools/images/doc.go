// Command images builds OCI images of Go programs without a container engine.
//
// A specification lists the images: programs to compile and files to take. Each image is one layer: the programs, the
// roots that public certificates are checked by, two users, and the bill of materials. Nothing in it depends on when or
// where it was built, so that the same source gives the same digest.
//
//	specification ─▶ go build per platform ─▶ layer + SBOM ─▶ OCI layout, docker-archive per platform, registry
//
// It builds with the go command that it finds on PATH and takes whatever module cache that uses.
package main
