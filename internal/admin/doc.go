// Package admin serves the ports through which a component is looked into: the
// admin port on loopback (profiles, log level, and what the component adds), the
// metrics port, and the readiness port, which names what is pending. They speak
// HTTP/1.1, and HTTP/2 with prior knowledge for what is asked over gRPC.
package admin
