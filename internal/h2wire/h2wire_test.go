package h2wire_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/h2wire"
)

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := h2wire.NewBudget()
		n := 0
		for b.Spend(1) {
			n++
		}
		if n != 2000 {
			t.Errorf("a burst of %d, want 2000", n)
		}
		time.Sleep(time.Second)
		if !b.Spend(400) || b.Spend(200) {
			t.Error("a second does not give 500")
		}
		if b.Earn(1e6); !b.Spend(2000) || b.Spend(1) {
			t.Error("work earns more than a burst")
		}
	})
}

// The library reads what we write.
func TestFrames(t *testing.T) {
	var b []byte
	b = h2wire.AppendSettings(b, h2wire.Setting{ID: h2wire.SettingMaxFrameSize, Value: 1 << 15})
	b = h2wire.AppendPing(b, h2wire.FlagAck, [8]byte{1, 2, 3, 4, 5, 6, 7, 8})
	b = h2wire.AppendWindowUpdate(b, 3, 1000)
	b = h2wire.AppendRSTStream(b, 5, h2wire.CodeCancel)
	b = h2wire.AppendGoAway(b, 7, h2wire.CodeEnhanceYourCalm, "why")
	fr := http2.NewFramer(nil, bytes.NewReader(b))
	next := func() http2.Frame {
		f, err := fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if v, ok := next().(*http2.SettingsFrame).Value(http2.SettingMaxFrameSize); !ok || v != 1<<15 {
		t.Errorf("SETTINGS: %d, %t", v, ok)
	}
	if f := next().(*http2.PingFrame); !f.IsAck() || f.Data[7] != 8 {
		t.Errorf("PING: %v", f)
	}
	if f := next().(*http2.WindowUpdateFrame); f.StreamID != 3 || f.Increment != 1000 {
		t.Errorf("WINDOW_UPDATE: %v", f)
	}
	if f := next().(*http2.RSTStreamFrame); f.StreamID != 5 || f.ErrCode != http2.ErrCodeCancel {
		t.Errorf("RST_STREAM: %v", f)
	}
	if f := next().(*http2.GoAwayFrame); f.LastStreamID != 7 || f.ErrCode != http2.ErrCodeEnhanceYourCalm || string(f.DebugData()) != "why" {
		t.Errorf("GOAWAY: %v", f)
	}
	want := h2wire.FrameHeader{Length: 1<<24 - 1, Type: 9, Flags: 0xff, Stream: 1<<31 - 1}
	if got := h2wire.ParseFrameHeader(h2wire.AppendFrameHeader(nil, want)); got != want {
		t.Errorf("header %+v", got)
	}
	if s := h2wire.ErrCode(0x99).String(); s != "error code 0x99" || h2wire.CodeCancel.String() != "CANCEL" {
		t.Error(s)
	}
}
