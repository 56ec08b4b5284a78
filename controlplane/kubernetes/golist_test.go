package kubernetes_test

import (
	"os/exec"
	"strings"
)

// goList gives the folder of a module.
func goList(module string) (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	return strings.TrimSpace(string(out)), err
}
