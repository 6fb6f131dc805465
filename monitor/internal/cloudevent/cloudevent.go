// Package cloudevent makes CloudEvents 1.0 of what is in an outbox, for the
// senders that share that form.
package cloudevent

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"

	"github.com/pawl-ota/pawl/monitor/outbox"
)

const typePrefix = "com.github.pawl-ota."

// Event is one CloudEvent in JSON.
type Event struct {
	SpecVersion string          `json:"specversion"`
	ID          string          `json:"id"`
	Source      string          `json:"source"`
	Type        string          `json:"type"`
	Time        string          `json:"time,omitempty"`
	ContentType string          `json:"datacontenttype"`
	Sequence    string          `json:"sequence"`
	Class       string          `json:"pawlclass"`
	Data        json.RawMessage `json:"data,omitempty"`
	Base64      []byte          `json:"data_base64,omitempty"`

	// Kind is that of a monitor.Event, or "event".
	Kind string `json:"-"`
}

// Of makes a CloudEvent of what a monitor.Stream put into the outbox, and of
// anything else too.
func Of(item outbox.Item) Event {
	var is struct {
		Kind    string `json:"kind"`
		Device  string `json:"device"`
		Time    string `json:"time"`
		Trusted bool   `json:"timeTrusted"`
	}
	e := Event{
		SpecVersion: "1.0", ID: item.ID, Sequence: fmt.Sprintf("%020d", item.Seq), Class: "metric",
		ContentType: "application/json", Data: item.Data,
	}
	if item.Keep {
		e.Class = "result"
	}
	if err := json.Unmarshal(item.Data, &is); err != nil {
		e.Data, e.Base64, e.ContentType = nil, item.Data, "application/octet-stream"
	}
	e.Kind = cmp.Or(is.Kind, "event")
	e.Type = typePrefix + e.Kind
	e.Source = "/devices/" + url.PathEscape(is.Device)
	if is.Trusted {
		e.Time = is.Time
	}
	return e
}
