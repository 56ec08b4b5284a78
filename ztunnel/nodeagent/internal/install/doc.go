// Package install puts the CNI plugin on the node and keeps it there: the program
// in the directory of plugins, and its entry in the configuration of the primary
// CNI, whichever that is. It takes both out again.
//
//	<bin dir>/ambit-cni       replaced by rename, only when different
//	<conf dir>/10-x.conflist  edited by package cniconf, replaced by rename
//	<conf dir>/10-y.conf      becomes 10-y.conf.conflist, itself renamed to
//	                          10-y.conf.ambit-saved, which no runtime reads
//
// Runtimes use the first file of the directory in the order of names. The entry is
// in the first one that is valid, and in no other. A malformed file is named and
// left alone. Everything that is needed for taking the plugin out is in the
// directory itself, so that it works from any later version and without any state.
package install
