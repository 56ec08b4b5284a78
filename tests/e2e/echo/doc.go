// Command echo is a server and a client for tests of a mesh, in one program that goes by the name that it is called by.
//
//	server --port=8080 --port=8443 --tls=8443 --grpc=7070 --tcp=9090 --udp=9091
//	client http://host/path -H name:value --method=GET --count=10
//	client grpc://host:7070 --count=10
//	client udp://host:9091?say=text
//	client dns://name
//	client tcp://host:9090 --keep-alive --until-eof
//
// The server answers with what it saw of the request, and the client prints that and what it saw of the answer, a field on a
// line. The fields and the flags are those that the Gateway API's conformance suite uses in the pods of a mesh
// (conformance/utils/echo), so that this is its image echo-advanced too.
package main
