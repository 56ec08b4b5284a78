// Package system runs the mesh's own processes: the control plane, and on each
// node its ztunnel and its agent. A process that ends is started again, and
// whether it is ready is asked at its readiness port.
package system
