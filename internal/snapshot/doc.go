// Package snapshot keeps on disk what the control plane last told a proxy, so that the
// next process on the node can serve while the control plane is away.
//
//	magic (8) | format (4) | header: cluster, trust domain, node, time | resources … | end | SHA-256
//
// Lengths and the format are big endian. Header and resources are records of a length
// of 4 bytes and as many bytes: JSON, then envoy.service.discovery.v3.Resource; a
// length of 0 ends them. A file is used as a whole or not at all. What the control
// plane distributes holds no key, so there is none in it.
//
// Memory holds only what has changed since the last save; the rest is read from the
// file that this process wrote last, which it has open: another process that writes to
// the same path does not mix into it.
package snapshot
