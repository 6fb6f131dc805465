package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/pawl-ota/pawl/micro"
	"github.com/pawl-ota/pawl/micro/systemctl"
)

// supervisor says what starts and stops the services of the device: a word, or
// the commands of another one. In a command {} stands for the service.
type supervisor struct {
	word string

	Start      []string `json:"start"`
	Stop       []string `json:"stop"`
	Status     []string `json:"status"`
	StartLater []string `json:"startLater"`
	Restart    []string `json:"restart"`
	Reload     []string `json:"reload"`
	Reread     []string `json:"reread"`
	Env        []string `json:"env"`
}

// UnmarshalJSON takes a text or an object.
func (s *supervisor) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &s.word)
	}
	type plain supervisor
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	return dec.Decode((*plain)(s))
}

func (s *supervisor) check() error {
	switch {
	case s == nil || s.word == "systemd" || s.word == "systemctl":
		return nil
	case s.word != "":
		return fmt.Errorf("supervisor: %.40q is not known, only \"systemd\" and \"systemctl\" are, or commands", s.word)
	case len(s.Start) == 0 || len(s.Stop) == 0 || len(s.Status) == 0:
		return errors.New("supervisor: start, stop and status are needed")
	}
	return nil
}

// open returns the supervisor, or nil where there is none.
func (s *supervisor) open() (micro.Supervisor, error) {
	switch {
	case s == nil:
		return nil, nil
	case s.word == "systemd":
		return newSystemd()
	case s.word == "systemctl":
		return &systemctl.Supervisor{}, nil
	}
	return &micro.CommandSupervisor{
		Commands: map[micro.Action][]string{
			micro.Start: s.Start, micro.Stop: s.Stop, micro.StartLater: s.StartLater, micro.Restart: s.Restart, micro.Reload: s.Reload,
		},
		Status: s.Status, Reread: s.Reread, Env: s.Env,
	}, nil
}
