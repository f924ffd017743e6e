"All settings are in settings.ini: edit there, not here."
import shlex
import shutil
from configparser import ConfigParser
from pathlib import Path

import setuptools
from setuptools.command.build_py import build_py

STATUSES = ['1 - Planning', '2 - Pre-Alpha', '3 - Alpha', '4 - Beta', '5 - Production/Stable', '6 - Mature', '7 - Inactive']
LICENSES = {'apache2': 'Apache-2.0', 'mit': 'MIT', 'bsd3': 'BSD-3-Clause'}
EXPECTED = ['lib_name', 'version', 'description', 'keywords', 'author', 'author_email', 'license', 'status', 'min_python',
            'audience', 'language', 'lib_path', 'git_url']

parser = ConfigParser(delimiters=['='])
parser.read('settings.ini', encoding='utf-8')
settings = parser['DEFAULT']
missing = [name for name in EXPECTED if name not in settings]
assert not missing, f"settings.ini lacks {', '.join(missing)}"

library = settings['lib_path']
readme = Path('README.md')
# dev_requirements becomes the extra `dev`, bench_requirements `bench`, and so on
extras = {name.removesuffix('_requirements'): shlex.split(value) for name, value in settings.items()
          if name.endswith('_requirements')}

class BuildWithResults(build_py):
    "Put the measured results beside the modules, where the tutorials read them"
    def run(self):
        super().run()
        if self.editable_mode: return  # the modules of a clone read its own
        folder = Path(self.build_lib, library, 'results')
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(Path('results').glob('*.csv')): shutil.copy(path, folder)

setuptools.setup(
    cmdclass=dict(build_py=BuildWithResults),
    name=settings['lib_name'],
    version=settings['version'],
    description=settings['description'],
    keywords=settings['keywords'],
    author=settings['author'],
    author_email=settings['author_email'],
    url=settings['git_url'],
    license=LICENSES.get(settings['license'], settings['license']),
    classifiers=[
        f"Development Status :: {STATUSES[int(settings['status']) - 1]}",
        f"Intended Audience :: {settings['audience'].title()}",
        f"Natural Language :: {settings['language'].title()}",
        'Programming Language :: Python :: 3',
    ],
    packages=setuptools.find_packages(include=[library, f'{library}.*']),
    include_package_data=True,
    zip_safe=False,
    python_requires=f">={settings['min_python']}",
    install_requires=shlex.split(settings.get('requirements', '')),
    extras_require=extras,
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else '',
    long_description_content_type='text/markdown',
    entry_points={
        'console_scripts': shlex.split(settings.get('console_scripts', '')),
        'nbdev': [f'{library}={library}._modidx:d'],
    },
)
