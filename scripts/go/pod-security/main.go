// Command pod-security says where manifests break the restricted Pod Security Standard, with the code that the API server
// enforces it with.
//
//	pod-security FILE…
//
// Looked at are pods, and the pod templates of what makes pods. No pod at all is an error: nothing would have been checked.
// Exit code: 0 all comply, 1 findings, 2 could not look.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// What pods and their makers have in common.
type object struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              json.RawMessage `json:"spec"`
}

type template struct {
	Template    *corev1.PodTemplateSpec `json:"template"`
	JobTemplate *struct {
		Spec struct {
			Template *corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	} `json:"jobTemplate"`
}

func main() {
	findings, pods, err := check(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "pod-security:", err)
		os.Exit(2)
	}
	for _, finding := range findings {
		fmt.Fprintln(os.Stderr, finding)
	}
	if len(findings) > 0 {
		os.Exit(1)
	}
	fmt.Printf("%d pods and pod templates, each as the restricted standard wants it\n", pods)
}

func check(files []string) (findings []string, pods int, err error) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, 0, err
	}
	standard := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for _, file := range files {
		objects, err := read(file)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", file, err)
		}
		for _, object := range objects {
			metadata, spec, err := pod(object)
			if err != nil {
				return nil, 0, fmt.Errorf("%s: %s/%s: %w", file, object.Kind, object.Name, err)
			}
			if spec == nil {
				continue
			}
			pods++
			for _, result := range evaluator.EvaluatePod(standard, metadata, spec) {
				if !result.Allowed {
					findings = append(findings, fmt.Sprintf("%s: %s/%s: %s: %s",
						file, object.Kind, object.Name, result.ForbiddenReason, result.ForbiddenDetail))
				}
			}
		}
	}
	if pods == 0 {
		return nil, 0, errors.New("no pod in any of the files")
	}
	return findings, pods, nil
}

func read(file string) ([]object, error) {
	opened, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	reader := yamlutil.NewYAMLReader(bufio.NewReader(opened))
	var objects []object
	for {
		text, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		var next object
		if err := yaml.Unmarshal(text, &next); err != nil {
			return nil, err
		}
		objects = append(objects, next)
	}
}

// pod returns nil for what has no pods.
func pod(object object) (*metav1.ObjectMeta, *corev1.PodSpec, error) {
	if object.Spec == nil {
		return nil, nil, nil
	}
	if object.Kind == "Pod" {
		var spec corev1.PodSpec
		err := json.Unmarshal(object.Spec, &spec)
		return &object.ObjectMeta, &spec, err
	}
	switch object.Kind {
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob":
	default:
		return nil, nil, nil
	}
	var maker template
	if err := json.Unmarshal(object.Spec, &maker); err != nil {
		return nil, nil, err
	}
	found := maker.Template
	if maker.JobTemplate != nil {
		found = maker.JobTemplate.Spec.Template
	}
	if found == nil {
		return nil, nil, errors.New("has no pod template")
	}
	return &found.ObjectMeta, &found.Spec, nil
}
