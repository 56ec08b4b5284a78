package controlplane

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/internal/statefile"
)

const (
	capturedName = "captured.journal"
	maxCaptured  = 256 << 20
	// compactAfter is how many changes beyond twice the pods that there are the
	// journal gathers before it is written anew.
	compactAfter = 1000
)

// capturedBatch is one line of the journal, behind the CRC-32 of its JSON. What
// changed together is in one line, so that a crash leaves all of it or nothing.
type capturedBatch struct {
	Captured []compile.CapturedPod `json:"captured,omitempty"`
	Released []types.UID           `json:"released,omitempty"`
}

// capturedJournal is the file of pods that peers reach by tunnel. A change is
// appended to it, and costs what it touches.
type capturedJournal struct {
	path    string
	pods    []compile.CapturedPod // as in the file, sorted by uid
	changes int                   // in the file
	// whole: nothing may be appended to the file as it is.
	whole bool
}

// openCaptured reads the journal; a file that does not exist is an empty set. A last
// line that is torn is left out, and told as torn: nobody was told of it, because
// that waits until it is on disk.
func openCaptured(path string) (j *capturedJournal, torn error, err error) {
	data, err := statefile.ReadPrivate(path, maxCaptured)
	if errors.Is(err, fs.ErrNotExist) {
		return &capturedJournal{path: path, whole: true}, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	pods, changes, torn, err := parseCaptured(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s is damaged: %w; restore it from a backup, or delete it: traffic to captured pods is then plaintext until their node agents have reported them", path, err)
	}
	return &capturedJournal{path: path, pods: pods, changes: changes, whole: torn != nil || len(data) == 0}, torn, nil
}

// parseCaptured replays a journal.
func parseCaptured(data []byte) (list []compile.CapturedPod, changes int, torn, err error) {
	pods := make(map[types.UID]compile.CapturedPod)
	for n := 1; len(data) > 0; n++ {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		batch, err := parseBatch(line)
		if err == nil && !whole {
			err = errors.New("no line end")
		}
		switch {
		case err != nil && len(rest) == 0 && n > 1: // the first is written whole, see save
			return sorted(pods), changes, fmt.Errorf("line %d, the last one: %w", n, err), nil
		case err != nil:
			return nil, 0, nil, fmt.Errorf("line %d: %w", n, err)
		}
		for _, p := range batch.Captured {
			pods[p.UID] = p
		}
		for _, uid := range batch.Released {
			delete(pods, uid)
		}
		changes += len(batch.Captured) + len(batch.Released)
		data = rest
	}
	return sorted(pods), changes, nil, nil
}

func sorted(pods map[types.UID]compile.CapturedPod) []compile.CapturedPod {
	list := make([]compile.CapturedPod, 0, len(pods))
	for _, uid := range slices.Sorted(maps.Keys(pods)) {
		list = append(list, pods[uid])
	}
	return list
}

func parseBatch(line []byte) (b capturedBatch, err error) {
	sum, text, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return b, errors.New("not a checksum and a batch")
	}
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil || uint32(want) != crc32.ChecksumIEEE(text) {
		return b, errors.New("wrong checksum")
	}
	return b, json.Unmarshal(text, &b)
}

func (b capturedBatch) line() ([]byte, error) {
	text, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.ChecksumIEEE(text), text), nil
}

// difference is what leads from one list to another, both sorted by uid.
func difference(from, to []compile.CapturedPod) (b capturedBatch) {
	for len(from) > 0 || len(to) > 0 {
		switch {
		case len(to) == 0 || len(from) > 0 && from[0].UID < to[0].UID:
			b.Released, from = append(b.Released, from[0].UID), from[1:]
		case len(from) == 0 || to[0].UID < from[0].UID:
			b.Captured, to = append(b.Captured, to[0]), to[1:]
		default:
			if from[0] != to[0] {
				b.Captured = append(b.Captured, to[0])
			}
			from, to = from[1:], to[1:]
		}
	}
	return b
}

// save makes the file hold these pods, sorted by uid. It is on disk when save
// returns.
func (j *capturedJournal) save(pods []compile.CapturedPod) error {
	b := difference(j.pods, pods)
	changes := j.changes + len(b.Captured) + len(b.Released)
	switch {
	case j.whole || changes > 2*len(pods)+compactAfter:
		b, changes = capturedBatch{Captured: pods}, len(pods)
		line, err := b.line()
		if err == nil {
			err = statefile.Write(j.path, line, 0o600)
		}
		if err != nil {
			return err
		}
	case changes > j.changes:
		line, err := b.line()
		if err == nil {
			err = statefile.Append(j.path, line)
		}
		if err != nil {
			j.whole = true // who knows how much of it is there
			return err
		}
	}
	j.pods, j.changes, j.whole = pods, changes, false
	return nil
}
