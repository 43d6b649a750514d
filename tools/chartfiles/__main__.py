"""`python -m chartfiles`: write the files that follow from others, and tell which changed."""

from chartfiles import base_files, copied_files, readme_file


def main() -> None:
    for file, text in (copied_files() | readme_file() | base_files()).items():
        if not file.exists() or file.read_text() != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            print(f"written: {file}")


if __name__ == "__main__":
    main()
