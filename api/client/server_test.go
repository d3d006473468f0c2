package client

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/daybook-dev/daybook/internal/fault"
)

func TestParseServer(t *testing.T) {
	for _, test := range []struct {
		name     string
		want     Server
		url      string
		loopback bool
	}{
		{"127.0.0.1:4660", Server{"127.0.0.1:4660", false}, "http://127.0.0.1:4660", true},
		{"localhost:1", Server{"localhost:1", false}, "http://localhost:1", true},
		{"http://[::1]:4660/", Server{"[::1]:4660", false}, "http://[::1]:4660", true},
		{"http://logs:80", Server{"logs:80", false}, "http://logs:80", false},
		{"https://logs.example.com", Server{"logs.example.com:443", true}, "https://logs.example.com", false},
		{"https://logs.example.com:4660", Server{"logs.example.com:4660", true}, "https://logs.example.com:4660", false},
		{"https://[2001:db8::1]", Server{"[2001:db8::1]:443", true}, "https://[2001:db8::1]", false},
		{"127.0.0.1.example.com:1", Server{"127.0.0.1.example.com:1", false}, "http://127.0.0.1.example.com:1", false},
	} {
		got, err := ParseServer(test.name)
		if err != nil || got != test.want || got.URL() != test.url || got.Loopback() != test.loopback {
			t.Errorf("%q: %+v, %s, %v, %v", test.name, got, got.URL(), got.Loopback(), err)
		}
	}
	for _, bad := range []string{"", "logs", "http://logs", "ftp://logs:1", "https://", ":1", "http://a:b@logs:1", "https://logs/x", "https://a b"} {
		if _, err := ParseServer(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestTokensAreNotSentInPlaintext(t *testing.T) {
	for _, test := range []struct {
		server, token string
		insecure, bad bool
	}{
		{"logs:1", "", false, false},
		{"logs:1", "dbk_x", false, true},
		{"logs:1", "dbk_x", true, false},
		{"127.0.0.1:1", "dbk_x", false, false},
		{"https://logs:1", "dbk_x", false, false},
		{"https://logs:1", "dbk_x\ny", false, true},
	} {
		s, err := ParseServer(test.server)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.CheckToken(test.token, test.insecure); fault.Is(err, fault.Invalid) != test.bad || err != nil && strings.Contains(err.Error(), "dbk_") {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

func TestSavedToken(t *testing.T) {
	home := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	t.Setenv("HOME", home)
	t.Setenv("AppData", home)
	s := Server{Host: "logs.example.com:443", TLS: true}
	if token, err := s.SavedToken(); token != "" || err != nil {
		t.Errorf("no file: %q, %v", token, err)
	}
	path, err := s.TokenFile()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("dbk_x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if token, err := s.SavedToken(); token != "dbk_x" || err != nil {
		t.Errorf("%q, %v", token, err)
	}
	if token, err := (Server{Host: "other:443", TLS: true}).SavedToken(); token != "" || err != nil {
		t.Errorf("another server: %q, %v", token, err)
	}
	if runtime.GOOS != "windows" {
		for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			if token, err := s.SavedToken(); token != "" || !fault.Is(err, fault.Invalid) {
				t.Errorf("mode %v: %q, %v", mode, token, err)
			}
		}
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("x", maxTokenFile+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SavedToken(); !fault.Is(err, fault.Invalid) {
		t.Errorf("a long file: %v", err)
	}
}

func TestTrustedCertificatesAreChecked(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{empty, empty + ".gone"} {
		if _, err := TLS(file); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", file, err)
		}
	}
	if _, err := (Server{Host: "logs:1"}).Options(nil, empty); !fault.Is(err, fault.Invalid) {
		t.Errorf("with plaintext: %v", err)
	}
}
