// Package command is the command line of the programs that are a control plane: the one
// of clusters, and the one of local meshes, which reads files only. What they do is
// package controlplane's.
package command
