# make demo    install what is missing, build, and serve a model on two replicas, of which one is killed
# make test    the whole test suite; make fast: what takes under two minutes; make asan, make tsan: under the sanitizers
# make ray     Ray into a virtual environment, and chorus-ray, which needs it (docs/ray.md)
# make test-launchers   the tests under torchrun, mpirun and Ray, which it installs (the first and the last into a virtual environment)
# make test-server      the tests of the server through other programs' clients, which it installs into a virtual environment
# make test-page       the tests of the page at / in Debian's chromium
# make fuzz TARGET=pattern SECONDS=60   one fuzzer under the sanitizers; what is new lies in build-fuzz/corpus (docs/security.md)
# make wheel   build-wheel/dist/chorus-*.whl: the Python package, with the program; make test-python: its tests, in a virtual environment
# make deb     build/chorus_VERSION_ARCHITECTURE.deb: the program, manual page, completions, systemd unit; `cmake --install build` puts the same anywhere
# make check-deb   the package in a bare Debian 12: installed, serving, removed (as root)
# make bench   the kernels' benchmarks
# make format  clang-format over our sources; make tidy: clang-tidy over all of them, make tidy-changed: over what changed since BASE (default: the
#              last tag, else main)
PYTHON ?= /usr/bin/python3
JOBS ?= $(shell nproc)
LAUNCHERS ?= $(or $(CHORUS_LAUNCHERS_VENV),$(HOME)/.cache/chorus/launchers)
RAY_VERSION ?= 2.60.0
CLIENTS ?= $(or $(CHORUS_CLIENTS_VENV),$(HOME)/.cache/chorus/clients)
CLIENT_PACKAGES = openai jsonschema pyyaml pytest schemathesis litellm llm langchain-openai
PYTHON_VENV ?= $(or $(CHORUS_PYTHON_VENV),$(HOME)/.cache/chorus/python)
# The Python package has chorus-ray where `make ray` has installed Ray.
RAY_VENV = $(if $(wildcard $(LAUNCHERS)/lib/python3*/site-packages/ray/cpp/lib/libray_api.so),$(LAUNCHERS))
# What pyproject.toml requires, here without pip's own copy of it, whose path would be another for the compiler cache each time.
WHEEL_TOOLS = "nanobind>=3.1,<4" "scikit-build-core>=1.1,<2"
export CCACHE_BASEDIR := $(CURDIR)
# Without it UndefinedBehaviorSanitizer says what it finds and goes on: no test and no fuzzer would fail.
export UBSAN_OPTIONS ?= halt_on_error=1:print_stacktrace=1
LAUNCHER = $(if $(shell command -v ccache),-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
CONFIGURE = cmake --preset $(1) $(LAUNCHER) $(2) > build-$(1).log 2>&1 || { cat build-$(1).log; exit 1; }

.PHONY: build deb check-deb demo test ray test-launchers test-server test-page wheel test-python tidy-python fast asan tsan fuzz bench format tidy tidy-changed install-packages install-dev-packages clean

build: install-packages
	@$(call CONFIGURE,release)
	@ninja -C build -j$(JOBS) chorus

install-packages:
	@tools/install_packages.sh

deb: build
	@tools/install_packages.sh packages-deb.txt
	@ninja -C build chorus_shell_files
	@cd build && cpack -G DEB

# In a bare Debian 12 that mmdebstrap makes; as root.
check-deb: deb
	@command -v mmdebstrap > /dev/null || { apt-get install -y -qq mmdebstrap; }
	@tools/check_deb.py

demo: build
	@tools/demo.py

test: install-packages
	@$(call CONFIGURE,release)
	@ninja -C build -j$(JOBS)
	ctest --test-dir build --output-on-failure

# The versions of both wheels must be the cluster's.
ray: build
	@tools/install_packages.sh packages-launchers.txt
	@test -x $(LAUNCHERS)/bin/pip || $(PYTHON) -m venv $(LAUNCHERS)
	@$(LAUNCHERS)/bin/pip install -q "ray[default]==$(RAY_VERSION)" "ray-cpp==$(RAY_VERSION)"
	@$(call CONFIGURE,release,-DCHORUS_RAY_VENV=$(LAUNCHERS))
	@ninja -C build -j$(JOBS) chorus-ray

test-launchers: ray
	@ninja -C build -j$(JOBS) launcher_tool
	@test -x $(LAUNCHERS)/bin/torchrun || { $(PYTHON) -m venv $(LAUNCHERS) && $(LAUNCHERS)/bin/pip install -q torch numpy pytest; }
	CHORUS_LAUNCHERS_VENV=$(LAUNCHERS) $(LAUNCHERS)/bin/python -m pytest -q -p no:cacheprovider tests/launchers

test-server: build
	@tools/install_packages.sh packages-server.txt
	@test -x $(CLIENTS)/bin/schemathesis || { $(PYTHON) -m venv $(CLIENTS) && $(CLIENTS)/bin/pip install -q $(CLIENT_PACKAGES); }
	CHORUS=$(CURDIR)/build/chorus $(CLIENTS)/bin/python -m pytest -q -p no:cacheprovider tests/clients

test-page: build
	@tools/install_packages.sh packages-page.txt
	CHORUS=$(CURDIR)/build/chorus $(PYTHON) -m pytest -q -p no:cacheprovider tests/page

wheel: install-packages
	@test -x $(PYTHON_VENV)/bin/scikit-build || { $(PYTHON) -m venv $(PYTHON_VENV) && $(PYTHON_VENV)/bin/pip install -q $(WHEEL_TOOLS); }
	@rm -rf build-wheel/dist
	@PATH="$(PYTHON_VENV)/bin:$$PATH" CXX=c++ CMAKE_CXX_COMPILER_LAUNCHER=$$(command -v ccache) CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) \
	  $(PYTHON_VENV)/bin/pip wheel -q --no-build-isolation --no-deps --no-index --config-settings build-dir=build-wheel \
	  --config-settings cmake.define.CHORUS_RAY_VENV=$(RAY_VENV) -w build-wheel/dist .

# The folder beside the virtual environment is for the launchers', which has torch and Ray (make test-launchers).
test-python: wheel
	@test -x $(PYTHON_VENV)/bin/tqdm || $(PYTHON_VENV)/bin/pip install -q numpy tqdm pytest
	@$(PYTHON_VENV)/bin/pip install -q --no-index --no-deps --force-reinstall build-wheel/dist/*.whl
	@rm -rf build-wheel/site && $(PYTHON_VENV)/bin/pip install -q --no-index --no-deps --target build-wheel/site build-wheel/dist/*.whl
	CHORUS_PYTHON_SITE=$(CURDIR)/build-wheel/site CHORUS_LAUNCHERS_VENV=$(LAUNCHERS) \
	  $(PYTHON_VENV)/bin/python -m pytest -q -p no:cacheprovider tests/python

fast: install-packages
	@$(call CONFIGURE,release)
	@ninja -C build -j$(JOBS)
	ctest --test-dir build --output-on-failure -LE slow

asan tsan: install-packages
	@$(call CONFIGURE,$@)
	@ninja -C build-$@ -j$(JOBS)
	ctest --test-dir build-$@ --output-on-failure -LE "slow|benchmark"

TARGET ?= template_grammar
SECONDS ?= 60
fuzz: install-packages
	@tools/install_packages.sh packages-fuzz.txt
	@$(call CONFIGURE,fuzz)
	@ninja -C build-fuzz -j$(JOBS) fuzz_target_$(TARGET)
	@mkdir -p build-fuzz/corpus/$(TARGET)
	@fuzz/dictionary.py $(TARGET) > build-fuzz/corpus/$(TARGET).dict
	cd build-fuzz/corpus && ../fuzz/$(TARGET) -max_total_time=$(SECONDS) -max_len=65536 -timeout=60 -rss_limit_mb=2048 \
	  $$(test ! -s $(TARGET).dict || echo -dict=$(TARGET).dict) $(TARGET) $(CURDIR)/fuzz/corpus/$(TARGET)

bench: install-packages
	@$(call CONFIGURE,release,-DCHORUS_BENCH=ON)
	@ninja -C build -j$(JOBS)
	@for program in build/bench/*_bench; do $$program || exit 1; done

install-dev-packages: install-packages
	@tools/install_packages.sh packages-dev.txt

format: install-dev-packages
	@clang-format -i $$(git ls-files '*.h' '*.cc')

# The preset tidy is only configured, for its compile commands.
tidy tidy-changed: install-dev-packages
	@$(call CONFIGURE,tidy)
	@tools/tidy.py build-tidy --jobs $(JOBS) $(if $(filter tidy-changed,$@),--since "$(BASE)")

# Of python/src, which the wheel's build alone compiles.
tidy-python: wheel install-dev-packages
	@tools/tidy.py build-wheel --only python --jobs $(JOBS)

clean:
	rm -rf build build-asan build-tsan build-tidy build-fuzz build-pip build-wheel build-*.log
