//go:build monitor

package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// unpack returns the files of an archive, without its folder.
func unpack(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	zip, err := gzip.NewReader(f)
	require.NoError(t, err)
	all := map[string]string{}
	for r := tar.NewReader(zip); ; {
		head, err := r.Next()
		if err == io.EOF {
			return all
		}
		require.NoError(t, err)
		data, err := io.ReadAll(r)
		require.NoError(t, err)
		_, name, _ := strings.Cut(head.Name, "/")
		all[name] = string(data)
	}
}

// planted are secrets, each told apart by its number.
const (
	inURL      = "plant/01 in+a:URL"
	inQuery    = "plant-02-in-a-query"
	inHeader   = "plant-03-in-a-header"
	inReport   = "plant-04-of-the-collector"
	inKeyFile  = "cGxhbnQtMDUtaW4tYS1rZXktZmlsZS1wbGFudC0wNQ"
	inEnv      = "plant-06-in-the-environment"
	inProxy    = "plant-07-in-a-proxy"
	inArgs     = "plant-08-in-arguments"
	inHealth   = "plant-09-in-what-a-probe-saw"
	inLogs     = "plant-10-in-a-log"
	inJWT      = "eyJhbGciOiJIUzI1NiJ9.eyJwbGFudCI6MTF9.cGxhbnQtMTEtc2lnbmF0dXJl"
	inBlock    = "cGxhbnQtMTItaW4tYS1ibG9jay1vZi1hLWtleQ"
	inSuper    = "plant-13-in-a-supervisor"
	inPassword = "plant-14-of-a-broker"
	inPhrase   = "plant 15 in a passphrase"
	inBareArg  = "plant-16-an-argument-of-no-name"
	inBareEnv  = "plant-17-a-variable-of-no-name"
)

var planted = []string{inURL, inQuery, inHeader, inReport, inKeyFile, inEnv, inProxy, inArgs, inHealth, inLogs, inJWT, inBlock, inSuper, inPassword, inPhrase, inBareArg, inBareEnv}

const logLines = `2026-11-22T10:00:00+0000 cam app[7]: lens is dirty
2026-11-22T10:00:01+0000 cam app[7]: GET https://me:` + inLogs + `@cdn.example.com/x password=` + inLogs + ` token: '` + inLogs + `'
2026-11-22T10:00:02+0000 cam app[7]: {"msg":"sent","api_key":"` + inLogs + `","text":"{\"secret\":\"` + inLogs + `\"}"}
2026-11-22T10:00:03+0000 cam app[7]: Authorization: Basic ` + inLogs + `
2026-11-22T10:00:03+0000 cam app[7]: jwt ` + inJWT + `
2026-11-22T10:00:03+0000 cam app[7]: AKIAABCDEFGHIJKLMNOP
2026-11-22T10:00:03+0000 cam app[7]: ghp_plantplantplant
2026-11-22T10:00:03+0000 cam app[7]: AGE-SECRET-KEY-1PLANTPLANT
2026-11-22T10:00:03+0000 cam app[7]: it sends Bearer ` + inLogs + `
2026-11-22T10:00:03+0000 cam app[7]: Cookie: session=` + inLogs + `
2026-11-22T10:00:04+0000 cam app[7]: -----BEGIN EC PRIVATE KEY-----
2026-11-22T10:00:05+0000 cam app[7]: ` + inBlock + `
2026-11-22T10:00:06+0000 cam app[7]: -----END EC PRIVATE KEY-----
2026-11-22T10:00:07+0000 cam app[7]: the environment is ` + inEnv + `, the header ` + inHeader + `, the phrase ` + inPhrase + `
2026-11-22T10:00:08+0000 cam app[7]: that was all
`

// troubled is a device with secrets everywhere, and a release that was taken
// back.
func troubled(t *testing.T) *fleet {
	f := newFleet(t)
	f.config["health"] = []any{map[string]any{"exec": []string{"/bin/sh", "-c", "grep -q clear " + f.dir + "/app/lens || { echo dirty, password=" + inHealth + "; exit 1; }", inBareArg, "--token=" + inArgs}}}
	f.play()
	keys := filepath.Join(f.dir, "client.key")
	require.NoError(t, os.WriteFile(keys, []byte("-----BEGIN PRIVATE KEY-----\n"+inKeyFile+"\n-----END PRIVATE KEY-----\n"), 0o600))
	password := filepath.Join(f.dir, "password")
	require.NoError(t, os.WriteFile(password, []byte(inPassword+"\n"), 0o600))
	web := url.URL{Scheme: "https", Host: "updates.example.com", User: url.UserPassword("me", inURL), Path: "/camera", RawQuery: "sig=" + inQuery}
	f.config["source"] = map[string]any{
		"url": web.String(), "root": "repo/metadata/1.root.json", "cert": keys, "key": keys, "headers": map[string]string{"X-Api-Key": inHeader},
	}
	f.config["report"] = map[string]any{
		"mqtt":    map[string]any{"url": "mqtts://broker.example.com", "username": "cam", "passwordFile": password},
		"otlp":    map[string]any{"url": "https://otlp.example.com", "headers": map[string]string{"Authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+inReport))}},
		"metrics": map[string]any{"units": []string{"camera.service"}},
	}
	f.config["supervisor"] = map[string]any{
		"start": []string{"/bin/true", inArgs}, "stop": []string{"/bin/true"}, "status": []string{"/bin/false"}, "env": []string{"LENS=" + inBareEnv, "LENS_SECRET=" + inSuper},
	}
	bin := filepath.Join(f.dir, "bin")
	require.NoError(t, os.Mkdir(bin, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(f.dir, "lines"), []byte(logLines+inSuper+" "+inPassword+" "+inKeyFile+" "+inReport+" "+url.QueryEscape(inURL)+"\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(bin, "journalctl"), []byte("#!/bin/sh\ncase \"$*\" in *--unit=camera.service*) exec /bin/cat "+f.dir+"/lines;; esac\nexit 3\n"), 0o755))
	t.Setenv("PATH", bin)
	t.Setenv("CAMERA_TOKEN", inEnv)
	t.Setenv("MAKER_PASSPHRASE", inPhrase)
	t.Setenv("HTTPS_PROXY", "http://proxy:"+inProxy+"@127.0.0.1:1")
	return f
}

// TestBundle has everything be in the archive that tells what is wrong with a
// device, and nothing that is secret, in no form.
func TestBundle(t *testing.T) {
	f := troubled(t)
	path := filepath.Join(f.dir, "bundle.tar.gz")
	code, ans, _ := f.agent("bundle-logs", path)
	require.Equal(t, exitOK, code, ans.Error)
	require.Equal(t, path, ans.File)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	files := unpack(t, path)
	for name, wants := range map[string][]string{
		"status.json":             {`"state": "reverted"`, `"leftNs"`[:0], "dirty", `"outbox"`, `"trusted"`},
		"status.txt":              {"runs 2 (seq 2), idle", "last: ", "dirty"},
		"history.json":            {`"reason"`, `"version": "3"`},
		"journal.json":            {`"record"`, `"running"`, `"fallback"`},
		"metadata.json":           {`"role": "timestamp"`, `"role": "root"`, `"version": 1`, `"expires"`},
		"config.json":             {`"url": "https://updates.example.com/camera"`, `"product": "camera"`, `"/bin/sh"`, `"LENS_SECRET=(hidden)"`},
		"device.json":             {`"memory.available"`, `"freeInodes"`, `"kernel"`},
		"state.txt":               {"updates/journal.a", "trust/marks"},
		"logs/camera.service.log": {"lens is dirty", "that was all", "GET https://(hidden)@cdn.example.com/x password=(hidden)"},
		"bundle.json":             {`"pawl-bundle/0"`, "logs/kernel: journalctl: exit status 3", `"go": "go1.`},
	} {
		for _, want := range wants {
			require.Contains(t, files[name], want, name)
		}
		if strings.HasSuffix(name, ".json") {
			require.True(t, json.Valid([]byte(files[name])), name)
		}
	}
	requireNoSecrets(t, files)

	code, _, _ = f.agent("bundle-logs", path)
	require.Equal(t, exitOther, code, "what is there is not written over")
}

func requireNoSecrets(t *testing.T, files map[string]string) {
	t.Helper()
	for name, text := range files {
		for _, secret := range planted {
			for _, form := range forms(secret) {
				require.NotContains(t, text, form, "%s holds a secret", name)
			}
		}
		require.NotContains(t, text, "plant-", name)
		require.NotContains(t, text, "ghp_plant", name)
		require.NotContains(t, text, "AKIAABCD", name)
		require.NotContains(t, text, "PLANT", name)
	}
}

// TestBundleOfNothing has a device on which everything is missing or broken
// write what there is.
func TestBundleOfNothing(t *testing.T) {
	f := newFleet(t)
	state := filepath.Join(f.dir, "state", "updates")
	require.NoError(t, os.MkdirAll(state, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(state, "journal.a"), []byte("garbage"), 0o600))
	t.Setenv("PATH", "/nowhere")
	path := filepath.Join(f.dir, "bundle.tar.gz")
	code, ans, _ := f.agent("bundle-logs", path)
	require.Equal(t, exitOK, code, ans.Error)
	files := unpack(t, path)
	require.Contains(t, files["bundle.json"], "metadata.json: ")
	require.Contains(t, files["bundle.json"], "logs/kernel: ")
	require.Contains(t, files["state.txt"], "journal.a")
}
