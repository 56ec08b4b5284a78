package controlplane

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/internal/statefile"
)

const (
	capturedName   = "captured.json"
	capturedFormat = 1
	maxCaptured    = 256 << 20
)

// capturedSet is the file of pods that peers reach by tunnel.
type capturedSet struct {
	Format int                   `json:"format"`
	Pods   []compile.CapturedPod `json:"pods"`
}

// loadCaptured reads the set; a file that does not exist is an empty set.
func loadCaptured(path string) ([]compile.CapturedPod, error) {
	data, err := statefile.ReadPrivate(path, maxCaptured)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var set capturedSet
	if err = json.Unmarshal(data, &set); err == nil && set.Format != capturedFormat {
		err = fmt.Errorf("format %d, want %d", set.Format, capturedFormat)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; restore it from a backup, or delete it: traffic to captured pods is then plaintext until their node agents have reported them", path, err)
	}
	return set.Pods, nil
}

func saveCaptured(path string, pods []compile.CapturedPod) error {
	data, err := json.Marshal(capturedSet{Format: capturedFormat, Pods: pods})
	if err != nil {
		return err
	}
	return statefile.Write(path, data, 0o600)
}
