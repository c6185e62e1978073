// Renders overlays with kustomize's library and checks objects against schemas with kubeconform's, as their programs
// do, one request after the other. Starting either program takes ten times as long as what it is asked.
//
// Requests and answers are values of JSON, on standard input and output; an answer is a line. Kustomize's library has
// data races, so that nothing here runs side by side; who wants more starts a second process.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/yannh/kubeconform/pkg/resource"
	"github.com/yannh/kubeconform/pkg/validator"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

type request struct {
	// To render: the working directory and the folder as `kustomize build` takes them, and whether the objects are
	// asked for in the place of the text.
	Root   string `json:"root"`
	Folder string `json:"folder"`
	Parsed bool   `json:"parsed"`
	// To check: kubeconform's -schema-location, and each object as JSON.
	Schemas string   `json:"schemas"`
	Objects []string `json:"objects"`
}

type answer struct {
	// The render, as text or as objects, and what else the program would have printed.
	Output string            `json:"output"`
	Parsed []json.RawMessage `json:"parsed"`
	Words  string            `json:"words"`
	Failed bool              `json:"failed"`
	// One for each object.
	Results []result `json:"results"`
}

type result struct {
	Valid bool   `json:"valid"`
	Words string `json:"words"`
}

func main() {
	in := json.NewDecoder(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	said, err := os.CreateTemp("", "manifests-")
	if err != nil {
		log.Fatal(err)
	}
	_ = os.Remove(said.Name())
	for {
		var asked request
		if err := in.Decode(&asked); err == io.EOF {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		if err := out.Encode(reply(asked, said)); err != nil {
			log.Fatal(err)
		}
	}
}

func reply(asked request, said *os.File) answer {
	if asked.Schemas != "" {
		return check(asked)
	}
	// The libraries write warnings wherever they are.
	own := os.Stderr
	os.Stderr = said
	log.SetOutput(said)
	defer func() {
		os.Stderr = own
		log.SetOutput(own)
	}()
	given, err := render(asked)
	if err != nil {
		fmt.Fprintf(said, "Error: %v\n", err)
	}
	given.Words, given.Failed = taken(said), err != nil
	return given
}

func render(asked request) (answer, error) {
	if err := os.Chdir(asked.Root); err != nil {
		return answer{}, err
	}
	defer os.Chdir("/") //nolint:errcheck // it is always there
	options := krusty.MakeDefaultOptions()
	options.Reorder = krusty.ReorderOptionLegacy // the program's default
	objects, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), asked.Folder)
	if err != nil {
		return answer{}, err
	}
	if !asked.Parsed {
		text, err := objects.AsYaml()
		return answer{Output: string(text)}, err
	}
	// What AsYaml makes its text of.
	parsed := make([]json.RawMessage, 0, objects.Size())
	for _, object := range objects.Resources() {
		text, err := object.MarshalJSON()
		if err != nil {
			return answer{}, err
		}
		parsed = append(parsed, text)
	}
	return answer{Parsed: parsed}, nil
}

// taken empties the file and gives what was in it.
func taken(said *os.File) string {
	if _, err := said.Seek(0, io.SeekStart); err != nil {
		log.Fatal(err)
	}
	words, err := io.ReadAll(said)
	if err != nil {
		log.Fatal(err)
	}
	if err := said.Truncate(0); err != nil {
		log.Fatal(err)
	}
	if _, err := said.Seek(0, io.SeekStart); err != nil {
		log.Fatal(err)
	}
	return string(words)
}

// validators has the compiled schemas of each location: compiling takes nearly all of a check's time.
var validators = map[string]validator.Validator{}

func check(asked request) answer {
	known, err := validators[asked.Schemas], error(nil)
	if known == nil {
		known, err = validator.New([]string{asked.Schemas}, validator.Opts{Strict: true})
		if err != nil {
			return answer{Words: err.Error(), Failed: true}
		}
		validators[asked.Schemas] = known
	}
	results := make([]result, len(asked.Objects))
	for number, object := range asked.Objects {
		found := known.ValidateResource(resource.Resource{Bytes: []byte(object)})
		results[number] = result{Valid: found.Status == validator.Valid}
		if found.Err != nil {
			results[number].Words = found.Err.Error()
		} else if !results[number].Valid {
			results[number].Words = "was skipped"
		}
	}
	return answer{Results: results}
}
