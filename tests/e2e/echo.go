package e2e

import "fmt"

// echoApp is a Deployment of tests/e2e/echo on a node, with a Service of the same name: HTTP at 80, gRPC at 7070, TCP at
// 9090, UDP at 9091. A node of "" lets the scheduler decide.
func echoApp(name, node string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: %[1]s}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      serviceAccountName: %[1]s
      nodeName: %[2]q
      terminationGracePeriodSeconds: 1
      containers:
      - name: echo
        image: ambit.test/echo:dev
        imagePullPolicy: Never
        args: [--port=8080, --grpc=7070, --tcp=9090, --udp=9091, --version=%[1]s]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec:
  selector: {app: %[1]s}
  ports:
  - {name: http, port: 80, targetPort: 8080, appProtocol: http}
  - {name: grpc, port: 7070, appProtocol: kubernetes.io/h2c}
  - {name: tcp, port: 9090}
  - {name: udp, port: 9091, protocol: UDP}
---
`, name, node)
}
