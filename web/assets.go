package web

import (
	"embed"
	"html"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/daybook-dev/daybook/internal/fault"
)

// dist is what `npm run build` makes: index.html and, with a hash of their content in their names, everything it refers to.
//
//go:embed dist
var dist embed.FS

// assets are the built files, ready to be sent.
type assets struct {
	// shell is the page that all routes of the viewer share: a script tells from the address what to show.
	shell []byte
	files map[string]asset
}

type asset struct {
	contentType string
	data        []byte
}

// contentTypes are fixed here because the mime package asks the machine it runs on.
var contentTypes = map[string]string{
	".js":  "text/javascript; charset=utf-8",
	".css": "text/css; charset=utf-8",
	".svg": "image/svg+xml",
}

func loadAssets(version string) *assets {
	a := &assets{files: make(map[string]asset)}
	err := fs.WalkDir(dist, "dist", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := dist.ReadFile(name)
		if err != nil {
			return err
		}
		if name == "dist/index.html" {
			a.shell = []byte(strings.ReplaceAll(string(data), "{{version}}", html.EscapeString(version)))
			return nil
		}
		contentType := contentTypes[path.Ext(name)]
		if contentType == "" {
			contentType = mime.TypeByExtension(path.Ext(name))
		}
		a.files[path.Base(name)] = asset{contentType, data}
		return nil
	})
	if err != nil || a.shell == nil {
		// The files are part of the program; it was built wrong if one cannot be read.
		panic("web: the embedded assets are damaged: build them anew with `npm run build`")
	}
	return a
}

// static serves a built file. Its name changes with its content, so it may be kept for ever.
func (h *handler) static(w http.ResponseWriter, r *http.Request) error {
	a, ok := h.assets.files[r.PathValue("file")]
	if !ok {
		return fault.New(fault.NotFound, "there is no such file; reload the page that refers to it")
	}
	w.Header().Set("Content-Type", a.contentType)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("Content-Length", strconv.Itoa(len(a.data)))
	_, err := w.Write(a.data)
	return clientGone(err)
}
