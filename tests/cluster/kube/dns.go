package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/rewrite"
)

// dns is CoreDNS with the plug-ins that a cluster's DNS uses, in the order in which a query meets them. All plug-ins
// would pull in the clients of several clouds.
func dns() {
	dnsserver.Directives = []string{
		"reload", "ready", "health", "errors", "log", "cache", "rewrite", "hosts", "kubernetes", "forward",
	}
	coremain.Run()
}
