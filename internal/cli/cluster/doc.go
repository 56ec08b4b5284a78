// Package cluster is what the ambit command has for Kubernetes clusters: it installs
// meshes, enrols namespaces, makes waypoints and looks into what runs. Package install
// changes clusters, chart renders what is installed, kube reaches them.
package cluster
